// musl's pthread_setname_np prints the name of a file in /proc for threads other than the caller, and brings snprintf
// along for it, 11 KB. Rust's standard library names only the thread that calls.
#include <pthread.h>
#include <sys/prctl.h>

int pthread_setname_np(pthread_t thread, const char *name) {
  (void)thread;
  return prctl(PR_SET_NAME, name);
}
