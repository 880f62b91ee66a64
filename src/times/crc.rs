//! CRC-32 as in gzip (RFC 1952, section 8).

/// Processes four bytes at a time, with four tables. They are computed again for each body, in less than a microsecond;
/// as constants they would add 4 KiB to the binary.
#[derive(Debug)]
pub(super) struct Crc([[u32; 256]; 4]);

impl Crc {
    pub(super) fn new() -> Self {
        let mut tables = [[0; 256]; 4];
        let mut rounds = 0;
        for table in &mut tables {
            rounds += 8;
            // A checksum is linear: those of single bits are computed, all others are sums of two before them.
            for i in 1..256_usize {
                let lowest = i & i.wrapping_neg();
                table[i] = if lowest == i {
                    shifted(i as u32, rounds)
                } else {
                    table[lowest % 256] ^ table[i ^ lowest]
                };
            }
        }
        Self(tables)
    }

    /// Continues the checksum `crc` (0 at the start) with `bytes`.
    pub(super) fn add(&self, crc: u32, bytes: &[u8]) -> u32 {
        let [one, two, three, four] = &self.0;
        let mut crc = !crc;
        let (chunks, rest) = bytes.as_chunks();
        for chunk in chunks {
            crc ^= u32::from_le_bytes(*chunk);
            crc = four[crc as usize & 255]
                ^ three[(crc >> 8) as usize & 255]
                ^ two[(crc >> 16) as usize & 255]
                ^ one[(crc >> 24) as usize];
        }
        for &byte in rest {
            crc = (crc >> 8) ^ one[(crc as u8 ^ byte) as usize];
        }
        !crc
    }
}

/// A checksum after this many more zero bits.
fn shifted(mut crc: u32, rounds: u32) -> u32 {
    for _ in 0..rounds {
        crc = (crc >> 1) ^ (POLYNOMIAL * (crc & 1));
    }
    crc
}

/// With bits in reversed order, as in gzip.
const POLYNOMIAL: u32 = 0xedb8_8320;

#[cfg(test)]
mod tests {
    use super::Crc;

    #[test]
    fn the_checksum_is_that_of_gzip() {
        let crc = Crc::new();
        assert_eq!(crc.add(0, b""), 0);
        assert_eq!(crc.add(0, b"123456789"), 0xcbf4_3926);
        assert_eq!(
            crc.add(0, b"The quick brown fox jumps over the lazy dog"),
            0x414f_a339
        );
    }

    #[test]
    fn the_checksum_does_not_depend_on_the_pieces() {
        let crc = Crc::new();
        let bytes: Vec<u8> = (0..=255).collect();
        for cut in 0..=bytes.len() {
            let (one, two) = bytes.split_at(cut);
            assert_eq!(crc.add(crc.add(0, one), two), 0x2905_8c73, "{cut}");
        }
    }
}
