//! What deflate and gzip allow, and what they do not: each body by hand, or as Python's zlib wrote it.

use crate::bodies::Dice;
use crate::deflate::{self, Bits, Token};
use crate::{Change, Known, Reader, Rewritten, check, gzip, inflated};

/// What is read of a body, if it is good; flate2 reads the same.
fn read(body: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Known::new(Vec::new(), None);
    gzip::read(body, &mut reader)?;
    assert!(
        inflated(body).as_ref() == Some(&reader.seen),
        "flate2 reads something else"
    );
    Some(reader.seen)
}

/// A member of one block in a code of one's own.
fn coded(tokens: &[Token], literals: &[usize], distances: &[usize], data: &[u8]) -> Vec<u8> {
    let mut bits = Bits::default();
    deflate::header(&mut bits, true, literals, distances);
    deflate::write(&mut bits, tokens, literals, distances);
    deflate::wrap(&bits.bytes, data)
}

/// Two literals, the end, and a length of 3.
fn few_literals() -> [usize; 258] {
    let mut lengths = [0; 258];
    lengths[usize::from(b'a')] = 2;
    lengths[usize::from(b'b')] = 2;
    lengths[256] = 2;
    lengths[257] = 2;
    lengths
}

const A: Token = Token::Literal(b'a');

#[test]
fn python_s_bodies_are_read_and_changed() {
    let text: String = (0..12)
        .map(|i| format!("handler::request_{} /var/task/json.py ", i * i % 37))
        .collect();
    let text = text.as_bytes();
    let rle = [[b'a'; 600].as_slice(), &text[..40]].concat();
    for (what, hex, data) in [
        ("default", include_str!("python/default"), text),
        ("fixed", include_str!("python/fixed"), text),
        ("huffman only", include_str!("python/huffman"), text),
        ("rle", include_str!("python/rle"), &rle),
        ("stored", include_str!("python/stored"), &text[..60]),
        ("two members", include_str!("python/two-members"), text),
    ] {
        let hex = hex.trim();
        let body: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect(hex))
            .collect();
        assert_eq!(read(&body).as_deref(), Some(data), "{what}");
        for at in 0..data.len() - 9 {
            let change = Change {
                at,
                len: 9,
                bytes: *b"\xff\xfe\xfd\xfcabcde_",
            };
            check(
                &format!("{what}, {at}"),
                &body,
                data,
                &[change],
                at % 2 == 0,
            );
        }
    }
}

#[test]
fn the_longest_match_from_the_farthest_place_is_read() {
    let data: Vec<u8> = {
        let mut dice = Dice(1);
        let mut data: Vec<u8> = (0..32768).map(|_| dice.next() as u8).collect();
        data.extend_from_within(..258);
        data
    };
    let mut bits = Bits::default();
    deflate::stored(&mut bits, false, &data[..32768]);
    deflate::fixed(&mut bits, true, &[Token::Match(258, 32768)]);
    let body = deflate::wrap(&bits.bytes, &data);
    assert!(read(&body).as_ref() == Some(&data));
    // The source changes, the copy does not; and the other way round.
    for at in [0, 100, 249, 32768, 32900, 33017] {
        let change = Change {
            at,
            len: 9,
            bytes: [7; 10],
        };
        check(&format!("{at}"), &body, &data, &[change], false);
    }
}

#[test]
fn matches_reach_as_far_in_a_body_that_is_longer_than_the_window() {
    let mut dice = Dice(2);
    let begin: Vec<u8> = (0..32768).map(|_| dice.next() as u8).collect();
    let mut bits = Bits::default();
    deflate::stored(&mut bits, false, &begin);
    // 129 bytes at a time and the window's pieces do not fall together.
    let tokens = vec![Token::Match(129, 32768); 1500];
    deflate::fixed(&mut bits, true, &tokens);
    let length = 32768 + 129 * tokens.len();
    let data: Vec<u8> = begin.iter().copied().cycle().take(length).collect();
    let body = deflate::wrap(&bits.bytes, &data);
    assert!(read(&body).as_ref() == Some(&data));
    // Anywhere, and where the window has just been made shorter.
    let anywhere = (0..20).map(|i| length / 20 * i);
    for at in anywhere.chain((0..30).map(|i| 119_000 + 300 * i)) {
        let change = Change {
            at,
            len: 9,
            bytes: [7; 10],
        };
        check(&format!("{at}"), &body, &data, &[change], at % 200 == 0);
    }
}

#[test]
fn a_match_may_overlap_itself_and_not_reach_before_the_member() {
    for distance in 1..=8 {
        let begin = &b"abcdefgh"[..distance];
        let mut tokens: Vec<Token> = begin.iter().map(|byte| Token::Literal(*byte)).collect();
        let data: Vec<u8> = begin.iter().copied().cycle().take(distance + 258).collect();
        for (reach, expected) in [(distance, Some(data.clone())), (distance + 1, None)] {
            tokens.truncate(distance);
            tokens.push(Token::Match(258, reach));
            let mut bits = Bits::default();
            deflate::fixed(&mut bits, true, &tokens);
            let body = deflate::wrap(&bits.bytes, &data);
            assert_eq!(read(&body), expected, "{reach} back of {distance}");
            // What the member before had cannot be reached.
            let two = [deflate::wrap(&[3, 0], b""), body].concat();
            assert_eq!(read(&two), expected, "{reach} back of {distance}");
        }
    }
    let mut bits = Bits::default();
    deflate::fixed(&mut bits, true, &[Token::Match(3, 1)]);
    let first = deflate::wrap(&[0x4b, 0x04, 0x00], b"a");
    assert_eq!(read(&first).as_deref(), Some(&b"a"[..]));
    assert_eq!(
        read(&[first, deflate::wrap(&bits.bytes, b"aaa")].concat()),
        None
    );
}

#[test]
fn a_code_must_be_complete_but_for_a_single_distance() {
    let literals = few_literals();
    let tokens = [A, Token::Match(3, 1)];
    let body =
        |literals: &[usize], distances: &[usize]| coded(&tokens, literals, distances, b"aaaa");
    assert_eq!(
        read(&body(&literals, &[1])).as_deref(),
        Some(&b"aaaa"[..]),
        "only one distance"
    );
    assert_eq!(
        read(&body(&literals, &[1, 1])).as_deref(),
        Some(&b"aaaa"[..]),
        "complete"
    );
    assert_eq!(
        read(&body(&literals, &[2])),
        None,
        "one distance, but of two bits"
    );
    assert_eq!(
        read(&body(&literals, &[1, 1, 1])),
        None,
        "too many distances"
    );
    assert_eq!(
        read(&body(&literals, &[2, 2, 2])),
        None,
        "too few distances"
    );
    for (symbol, length, why) in [
        (0, 2, "too many"),
        (0, 15, "too many by one"),
        (97, 3, "too few"),
        (256, 0, "no end"),
    ] {
        let mut wrong = literals;
        wrong[symbol] = length;
        assert_eq!(read(&body(&wrong, &[1])), None, "{why}");
    }
    assert_eq!(
        read(&coded(&[A], &literals, &[0], b"a")).as_deref(),
        Some(&b"a"[..]),
        "no distance, and no match"
    );
    assert_eq!(
        read(&coded(&tokens, &literals, &[0], b"aaaa")),
        None,
        "no distance, but a match"
    );
}

#[test]
fn there_are_286_literals_and_30_distances_at_most() {
    for (literals, distances, good) in [
        (286, 30, true),
        (287, 30, false),
        (288, 1, false),
        (286, 31, false),
        (286, 32, false),
    ] {
        let mut lengths = vec![0; literals];
        lengths[..258].copy_from_slice(&few_literals());
        let mut others = vec![0; distances];
        others[0] = 1;
        let body = coded(&[A], &lengths, &others, b"a");
        assert_eq!(read(&body).is_some(), good, "{literals} and {distances}");
    }
}

#[test]
fn symbols_of_the_fixed_code_that_mean_nothing_are_refused() {
    // The block's header, then the highest codes: literal 287, and distance 30 after a length of 3.
    for (code, count, distance) in [(0b1100_0111, 8, None), (0b000_0001, 7, Some(30))] {
        let mut bits = Bits::default();
        bits.put(3, 3);
        for i in (0..count).rev() {
            bits.put(code >> i & 1, 1);
        }
        if let Some(distance) = distance {
            for i in (0..5).rev() {
                bits.put(distance >> i & 1, 1);
            }
        }
        bits.put(0, 7);
        assert_eq!(read(&deflate::wrap(&bits.bytes, b"")), None, "{code:b}");
    }
}

#[test]
fn blocks_and_members_may_be_empty_and_there_is_no_fourth_kind() {
    let mut bits = Bits::default();
    for _ in 0..3 {
        deflate::stored(&mut bits, false, b"");
        deflate::fixed(&mut bits, false, &[]);
    }
    deflate::stored(&mut bits, false, b"a");
    deflate::stored(&mut bits, true, b"");
    let body = deflate::wrap(&bits.bytes, b"a");
    assert_eq!(read(&body).as_deref(), Some(&b"a"[..]));
    let empty = deflate::wrap(&[3, 0], b"");
    assert_eq!(read(&empty).as_deref(), Some(&b""[..]));
    let many = [empty.repeat(100), body, empty.repeat(100)].concat();
    assert_eq!(read(&many).as_deref(), Some(&b"a"[..]));
    check(
        "in between",
        &many,
        b"a",
        &[Change {
            at: 0,
            len: 1,
            bytes: [255; 10],
        }],
        false,
    );
    assert_eq!(read(&deflate::wrap(&[7, 0], b"")), None);
    assert_eq!(
        read(&deflate::wrap(&[1, 1, 0, 0xff, 0xff, 0], b"\0")),
        None,
        "its length and the inverse differ"
    );
}

#[test]
fn a_header_has_no_optional_part() {
    let plain = deflate::wrap(&[0x4b, 0x04, 0x00], b"a");
    for flags in 0..=255 {
        let mut body = plain[..10].to_vec();
        body[3] = flags;
        if flags & 4 != 0 {
            body.extend_from_slice(b"\x03\x00xyz");
        }
        if flags & 8 != 0 {
            body.extend_from_slice(b"name\0");
        }
        if flags & 16 != 0 {
            body.extend_from_slice(b"comment\0");
        }
        if flags & 2 != 0 {
            let mut crc = flate2::Crc::new();
            crc.update(&body);
            body.extend_from_slice(&crc.sum().to_le_bytes()[..2]);
        }
        body.extend_from_slice(&plain[10..]);
        assert_eq!(read(&body).is_some(), flags == 0, "{flags:b}");
        for end in 0..body.len() {
            assert_eq!(read(&body[..end]), None, "{flags:b} until {end}");
        }
    }
}

#[test]
fn nothing_may_follow_the_last_member() {
    let body = deflate::wrap(&[3, 0], b"");
    for garbage in [
        &b"\0"[..],
        b"\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
        b"\x1f",
        b"\x1f\x8b",
        b"--boundary",
    ] {
        assert_eq!(read(&[&body, garbage].concat()), None, "{garbage:?}");
    }
    assert_eq!(read(b""), None, "nothing at all");
}

#[test]
fn a_cut_body_is_refused_and_of_a_damaged_one_no_other_bytes_are_read() {
    let mut dice = Dice(5);
    for functions in [1, 3, 12] {
        let (data, times) = crate::push(&mut dice, 1, functions);
        let body = crate::compress(&mut dice, &data);
        let change = [crate::time_at(times[0], 1_790_000_000_123_456_789)];
        check("whole", &body, &data, &change, false);
        for end in 0..body.len() {
            assert_eq!(
                gzip::read(&body[..end], &mut Known::new(Vec::new(), None)),
                None,
                "until {end}"
            );
        }
        for bit in 0..body.len() * 8 {
            let mut damaged = body.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let mut reader = Known::new(change.to_vec(), None);
            if let Some(rewritten) = gzip::rewrite(&damaged, &mut reader) {
                assert!(reader.seen == data, "bit {bit}");
                let new = crate::put_together(&damaged, &rewritten);
                if let Some(read) = inflated(&new) {
                    assert!(read == crate::with(&data, &change), "bit {bit}");
                } else {
                    assert_eq!(inflated(&damaged), None, "bit {bit}");
                }
            }
        }
    }
}

#[test]
fn a_wrong_checksum_or_size_is_refused() {
    let body = deflate::wrap(&[0x4b, 0x04, 0x00], b"a");
    for at in body.len() - 8..body.len() {
        let mut wrong = body.clone();
        wrong[at] ^= 1;
        assert_eq!(gzip::read(&wrong, &mut Known::new(Vec::new(), None)), None);
    }
}

#[test]
fn what_inflates_to_too_much_or_costs_too_much_is_refused() {
    /// Sees how much there is.
    struct Count(usize);
    impl Reader for Count {
        fn read(&mut self, bytes: &[u8]) -> bool {
            self.0 += bytes.len();
            true
        }
        fn changes(&self) -> &[Change] {
            &[]
        }
    }
    const LIMIT: usize = 16 << 20;
    for (length, good) in [(LIMIT - 4096, true), (LIMIT + 1, false)] {
        let mut bits = Bits::default();
        let mut tokens = vec![A];
        tokens.resize(1 + (length - 1) / 258, Token::Match(258, 1));
        tokens.resize(tokens.len() + (length - 1) % 258, A);
        deflate::fixed(&mut bits, true, &tokens);
        let mut count = Count(0);
        let read = gzip::read(&deflate::wrap(&bits.bytes, &vec![b'a'; length]), &mut count);
        assert_eq!(read.is_some(), good, "{length}");
        assert!(count.0 <= LIMIT + 4096, "{} of {length} were read", count.0);
    }
    // Blocks with a code each, and nothing in it.
    for (blocks, good) in [(1000, true), (20_000, false)] {
        let mut bits = Bits::default();
        for block in 0..blocks {
            deflate::header(&mut bits, block == blocks - 1, &few_literals(), &[1]);
            deflate::write(&mut bits, &[], &few_literals(), &[1]);
        }
        assert_eq!(
            gzip::read(&deflate::wrap(&bits.bytes, b""), &mut Count(0)).is_some(),
            good,
            "{blocks}"
        );
    }
}

#[test]
fn a_reader_that_gives_up_or_changes_nothing_leaves_the_body() {
    struct GivesUp;
    impl Reader for GivesUp {
        fn read(&mut self, _: &[u8]) -> bool {
            false
        }
        fn changes(&self) -> &[Change] {
            &[]
        }
    }
    let body = deflate::wrap(&[0x4b, 0x04, 0x00], b"a");
    assert_eq!(gzip::read(&body, &mut GivesUp), None);
    assert_eq!(
        gzip::rewrite(&body, &mut Known::new(Vec::new(), None)),
        Some(Rewritten {
            keep: body.len(),
            patch: None,
            tail: Vec::new(),
        })
    );
}

#[test]
fn a_change_before_what_is_remembered_or_after_the_end_is_refused() {
    /// Names it when all is read.
    struct Late(usize, Vec<Change>);
    impl Reader for Late {
        fn read(&mut self, bytes: &[u8]) -> bool {
            self.0 = self.0.saturating_sub(bytes.len());
            true
        }
        fn changes(&self) -> &[Change] {
            if self.0 == 0 { &self.1 } else { &[] }
        }
    }
    let data = [b'a'; 20_000];
    let mut bits = Bits::default();
    deflate::stored(&mut bits, true, &data);
    let body = deflate::wrap(&bits.bytes, &data);
    let rewrite = |at| {
        gzip::rewrite(
            &body,
            &mut Late(
                data.len(),
                vec![Change {
                    at,
                    len: 2,
                    bytes: [7; 10],
                }],
            ),
        )
        .is_some()
    };
    assert!(!rewrite(0));
    assert!(!rewrite(10_000));
    assert!(rewrite(19_998));
    assert!(!rewrite(19_999));
    assert!(!rewrite(20_000));
}

#[test]
fn a_body_that_would_grow_too_much_is_left() {
    // Each match repeats what changes: all of it would have to be said.
    let mut bits = Bits::default();
    let mut tokens: Vec<Token> = (0..=255).map(Token::Literal).collect();
    tokens.resize(256 + 10_000, Token::Match(256, 256));
    deflate::fixed(&mut bits, true, &tokens);
    let data: Vec<u8> = (0..=255).cycle().take(256 * 10_001).collect();
    let body = deflate::wrap(&bits.bytes, &data);
    let mut changes = Vec::new();
    for at in (0..data.len() - 9).step_by(20) {
        changes.push(Change {
            at,
            len: 9,
            bytes: [(at / 256) as u8; 10],
        });
    }
    assert_eq!(
        gzip::rewrite(&body, &mut Known::new(changes.clone(), None)),
        None
    );
    changes.truncate(200);
    check("fewer", &body, &data, &changes, false);
}

#[test]
fn far_from_the_end_the_fixed_code_is_left_even_where_it_is_shorter() {
    // It costs more time for each symbol than reading them. Here 15 bits for each byte, and 8 in the fixed code.
    let mut literals = [0; 257];
    literals[256] = 1;
    for (byte, length) in (2..15).enumerate() {
        literals[byte] = length;
    }
    literals[usize::from(b'a')] = 15;
    literals[usize::from(b'b')] = 15;
    let data = [b'a'; 5000];
    let body = coded(&[A; 5000], &literals, &[0], &data);
    let change = Change {
        at: 10,
        len: 1,
        bytes: [255; 10],
    };
    let grown = check("15 bits", &body, &data, &[change], false);
    assert!(grown.is_some_and(|grown| grown > 0), "{grown:?} bytes more");
}
