import io.pyroscope.javaagent.PyroscopeAgent;
import io.pyroscope.javaagent.config.Config;

import java.util.Map;
import java.util.concurrent.CountDownLatch;

/**
 * A Lambda function that burns CPU, allocates, and waits, while Pyroscope's Java agent profiles it.
 *
 * <p>The agent sends to localhost:4040 unless told otherwise, which FUNCTION_SDK_ADDRESS does, and uploads
 * each second, or as FUNCTION_UPLOAD_INTERVAL says. It reads the variables by which the extension is set
 * up too, as it would in any Lambda function; what becomes a header it is given of its own, so that the far end can
 * tell whose arrived.
 */
public final class Function {
    private static final Map<String, String> OWN_SETTINGS = Map.of(
        "PYROSCOPE_APPLICATION_NAME", System.getenv("FUNCTION_SERVICE"),
        "PYROSCOPE_BASIC_AUTH_USER", "of-the-sdk",
        "PYROSCOPE_BASIC_AUTH_PASSWORD", "of-the-sdk",
        "PYROSCOPE_HTTP_HEADERS", "{\"x-stage\": \"of-the-sdk\"}",
        "PYROSCOPE_SERVER_ADDRESS",
        System.getenv().getOrDefault("FUNCTION_SDK_ADDRESS", "http://localhost:4040"),
        "PYROSCOPE_LABELS", "team=e2e",
        "PYROSCOPE_TENANT_ID", "of-the-sdk",
        "PYROSCOPE_UPLOAD_INTERVAL", System.getenv().getOrDefault("FUNCTION_UPLOAD_INTERVAL", "1s")
    );

    static {
        PyroscopeAgent.start(Config.build(name -> OWN_SETTINGS.getOrDefault(name, System.getenv(name))));
    }

    public Map<String, Double> handle(Map<String, Double> event) throws InterruptedException {
        kept = allocateJavaHeap();
        waitForJavaLock();
        return Map.of("burned", burnJavaCpu(event.get("seconds")));
    }

    private static byte[] kept;

    private static byte[] allocateJavaHeap() {
        return new byte[1024 * 1024];
    }

    private static void waitForJavaLock() throws InterruptedException {
        Object lock = new Object();
        CountDownLatch locked = new CountDownLatch(1);
        Thread other = new Thread(() -> {
            synchronized (lock) {
                locked.countDown();
                burnJavaCpu(0.01);
            }
        });
        other.start();
        locked.await();
        synchronized (lock) {
            other.join();
        }
    }

    private static double burnJavaCpu(double seconds) {
        long until = System.nanoTime() + (long) (seconds * 1e9);
        double burned = 0;
        while (System.nanoTime() < until) {
            for (int i = 0; i < 1000; i++) {
                burned += Math.sqrt(i);
            }
        }
        return burned;
    }
}
