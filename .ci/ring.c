// What ring's Rust asks for and its C leaves out with OPENSSL_SMALL, see .ci/build. In each place a sibling does the
// same: it takes a time that does not depend on the numbers where another might, or runs on every processor.
#include <stdint.h>

void RING(p256_point_mul_base)(uint64_t r[3][4], const uint64_t scalar[4]);

void RING(p256_point_mul_base_vartime)(uint64_t r[3][4], const uint64_t scalar[4]) {
  RING(p256_point_mul_base)(r, scalar);
}

#if defined(__x86_64__)
void RING(x25519_scalar_mult_generic_masked)(uint8_t out[32], const uint8_t scalar[32], const uint8_t point[32]);

void RING(x25519_scalar_mult_adx)(uint8_t out[32], const uint8_t scalar[32], const uint8_t point[32]) {
  RING(x25519_scalar_mult_generic_masked)(out, scalar, point);
}
#endif
