// What ring's Rust asks for and its C leaves out with OPENSSL_SMALL, or what is left out here, see .ci/build. In each
// place a sibling does the same: it takes a time that does not depend on the numbers where another might, or runs on
// every processor.
#include <stddef.h>
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

// Hashes that are quicker on some processors: SHA-256 with AVX or SSSE3 where there are no instructions for it, and all of
// SHA-512. A handshake hashes some 10 KB, so they save a few microseconds of it, and took 12,000 bytes.
void RING(sha512_block_data_order_nohw)(uint64_t state[8], const uint8_t *data, size_t blocks);

#if defined(__x86_64__)
void RING(sha256_block_data_order_nohw)(uint32_t state[8], const uint8_t *data, size_t blocks);

void RING(sha256_block_data_order_avx)(uint32_t state[8], const uint8_t *data, size_t blocks) {
  RING(sha256_block_data_order_nohw)(state, data, blocks);
}

void RING(sha256_block_data_order_ssse3)(uint32_t state[8], const uint8_t *data, size_t blocks) {
  RING(sha256_block_data_order_nohw)(state, data, blocks);
}

void RING(sha512_block_data_order_avx)(uint64_t state[8], const uint8_t *data, size_t blocks) {
  RING(sha512_block_data_order_nohw)(state, data, blocks);
}
#elif defined(__aarch64__)
void RING(sha512_block_data_order_hw)(uint64_t state[8], const uint8_t *data, size_t blocks) {
  RING(sha512_block_data_order_nohw)(state, data, blocks);
}
#endif

// AES for processors with vectors and without instructions for AES. Each of Lambda's has those; any other takes the C
// that runs everywhere.
struct key;
int RING(aes_nohw_set_encrypt_key)(const uint8_t *user_key, int bits, struct key *key);
void RING(aes_nohw_ctr32_encrypt_blocks)(const uint8_t *input, uint8_t *output, size_t blocks, const struct key *key,
                                         const uint8_t counter[16]);

int RING(vpaes_set_encrypt_key)(const uint8_t *user_key, int bits, struct key *key) {
  return RING(aes_nohw_set_encrypt_key)(user_key, bits, key);
}

void RING(vpaes_ctr32_encrypt_blocks)(const uint8_t *input, uint8_t *output, size_t blocks, const struct key *key,
                                      const uint8_t counter[16]) {
  RING(aes_nohw_ctr32_encrypt_blocks)(input, output, blocks, key, counter);
}
