//! The frames of HTTP/2 that a client sends, followed by their headers (RFC 9113 section 4.1) as the connection reads, before
//! hyper's parser (h2) gets them. Payloads are passed over, but for the one setting that is kept.
//!
//! It does what h2 does not. h2 bounds what requests are made of: header blocks and their CONTINUATIONs, empty and tiny DATA, streams
//! that are reset before they are taken, streams that it refuses or resets itself. All other frames may come as fast as a client
//! can write them, and each costs work, some an answer; here they are counted. And h2 does not say how much a client takes of a stream.

use std::fmt;

use crate::timer::Millis;

const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
const CONTINUATION: u8 = 9;

const ACK: u8 = 1;
const END_HEADERS: u8 = 4;

const INITIAL_WINDOW_SIZE: u16 = 4;

/// What a client takes of a stream before it says more (RFC 9113 section 6.9.2), in bytes.
pub(crate) const WINDOW: u32 = 65_535;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The answer to the PING that h2 sends with its first GOAWAY: PING of connection 0 with ACK, and what h2 puts into it. After it h2
/// says GOAWAY with the last stream that it takes.
pub(crate) const GOODBYE: &[u8] = &[0, 0, 8, 6, ACK, 0, 0, 0, 0, 0x0b, 0x7b, 0xa2, 0xf0, 0x8b, 0x9b, 0xfe, 0x54];

const HEADER: usize = 9;

/// A reset throws work away that its request has caused, and makes room for the next at once (CVE-2023-44487).
const COST_OF_RESET: i64 = 10;

/// What a request may bring along: a client may open the windows again that its answer has taken, of stream and connection.
const CREDIT_FOR_REQUEST: i64 = 2;

/// For so many bytes sent a client may send one frame more: it may update both windows for each DATA frame, small ones too.
const BYTES_FOR_ONE: u64 = 1024;

/// Follows what one connection reads.
pub(crate) struct Frames {
    /// What is left of the preface, or of a payload.
    skip: usize,
    header: [u8; HEADER],
    /// How much of `header` was read.
    filled: usize,
    /// The client's preface is whole: its SETTINGS came.
    has_settings: bool,
    /// The last frame was SETTINGS; the last bytes of its payload.
    is_settings: bool,
    setting: u64,
    window: u32,
    last_stream: u32,
    /// The last frame was of a header block; the last of one.
    is_block: bool,
    ends_block: bool,
    /// Frames that count, for each second.
    limit: u32,
    /// The second that is being counted, what was spent in it so far, and what had been written before it.
    second: u64,
    spent: i64,
    written: u64,
}

/// Why a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    code: Code,
    last_stream: u32,
}

/// RFC 9113 section 7.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Code {
    ProtocolError = 1,
    EnhanceYourCalm = 11,
}

impl Frames {
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            skip: PREFACE.len(),
            header: [0; HEADER],
            filled: 0,
            has_settings: false,
            is_settings: false,
            setting: 0,
            window: WINDOW,
            last_stream: 0,
            is_block: false,
            ends_block: false,
            limit,
            second: 0,
            spent: 0,
            written: 0,
        }
    }

    /// Passes over what was read, `now`, after `written` bytes were sent.
    pub(crate) fn follow(&mut self, mut bytes: &[u8], now: Millis, written: u64) -> Result<(), Fault> {
        let second = now / 1000;
        if second != self.second {
            (self.second, self.spent, self.written) = (second, 0, written);
        }
        loop {
            let skipped = self.skip.min(bytes.len());
            if self.is_settings {
                self.settings(&bytes[..skipped]);
            }
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            let taken = bytes.len().min(HEADER - self.filled);
            self.header[self.filled..][..taken].copy_from_slice(&bytes[..taken]);
            self.filled += taken;
            bytes = &bytes[taken..];
            if self.filled < HEADER {
                return Ok(());
            }
            self.filled = 0;
            self.frame(written)?;
        }
    }

    /// A header block has begun that is not at its end: nothing else can come before.
    pub(crate) fn is_in_block(&self) -> bool {
        self.is_block && !(self.ends_block && self.skip == 0)
    }

    /// The window that each stream of this client begins with.
    pub(crate) fn stream_window(&self) -> u32 {
        self.window
    }

    /// A part of the payload of SETTINGS: identifiers of 16 bits, each with a value of 32 (RFC 9113 section 6.5.1).
    fn settings(&mut self, payload: &[u8]) {
        for (at, byte) in payload.iter().enumerate() {
            self.setting = self.setting << 8 | u64::from(*byte);
            let is_whole = (self.skip - at - 1).is_multiple_of(6);
            if is_whole && (self.setting >> 32) as u16 == INITIAL_WINDOW_SIZE {
                self.window = self.setting as u32;
            }
        }
    }

    /// Between two frames, and in no header block: one more could stand here.
    pub(crate) fn is_between(&self) -> bool {
        self.has_settings && self.skip == 0 && self.filled == 0 && !self.is_in_block()
    }

    /// How much is missing of the header or payload that is being read.
    pub(crate) fn missing(&self) -> usize {
        if self.skip > 0 { self.skip } else { HEADER - self.filled }
    }

    /// A header is whole.
    fn frame(&mut self, written: u64) -> Result<(), Fault> {
        let [length @ .., kind, flags, s0, s1, s2, s3] = self.header;
        self.skip = u32::from_be_bytes([0, length[0], length[1], length[2]]) as usize;
        if !self.has_settings && (kind != SETTINGS || flags & ACK != 0) {
            return Err(self.fault(Code::ProtocolError));
        }
        self.has_settings = true;
        self.is_settings = kind == SETTINGS && flags & ACK == 0;
        self.is_block = matches!(kind, HEADERS | CONTINUATION);
        self.ends_block = flags & END_HEADERS != 0;
        let cost = match kind {
            HEADERS => {
                let stream = u32::from_be_bytes([s0, s1, s2, s3]) & (u32::MAX >> 1);
                self.last_stream = self.last_stream.max(stream);
                -CREDIT_FOR_REQUEST
            }
            DATA | CONTINUATION => 0,
            RST_STREAM => COST_OF_RESET,
            // PING, SETTINGS, PRIORITY, WINDOW_UPDATE, GOAWAY, and what nobody knows.
            _ => 1,
        };
        self.spent += cost;
        if cost > 0 && self.spent > i64::from(self.limit) {
            let credit = (written - self.written) / BYTES_FOR_ONE;
            if self.spent.unsigned_abs() > u64::from(self.limit) + credit {
                return Err(self.fault(Code::EnhanceYourCalm));
            }
        }
        Ok(())
    }

    fn fault(&self, code: Code) -> Fault {
        Fault { code, last_stream: self.last_stream }
    }
}

impl Fault {
    pub(crate) fn is_flood(self) -> bool {
        self.code == Code::EnhanceYourCalm
    }

    /// The frame that tells the client (RFC 9113 section 6.8).
    pub(crate) fn go_away(self) -> [u8; HEADER + 8] {
        let mut frame = [0; HEADER + 8];
        frame[2] = 8;
        frame[3] = GOAWAY;
        frame[9..13].copy_from_slice(&self.last_stream.to_be_bytes());
        frame[13..].copy_from_slice(&(self.code as u32).to_be_bytes());
        frame
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.code {
            Code::ProtocolError => "the preface of HTTP/2 is not followed by SETTINGS",
            Code::EnhanceYourCalm => "too many HTTP/2 frames that are no part of a request",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PING: u8 = 6;
    const WINDOW_UPDATE: u8 = 8;

    fn frame(kind: u8, stream: u8, payload: &[u8]) -> Vec<u8> {
        [&[0, 0, payload.len() as u8, kind, 0, 0, 0, 0, stream], payload].concat()
    }

    fn started(limit: u32) -> Frames {
        let mut frames = Frames::new(limit);
        assert_eq!(frames.follow(PREFACE, 0, 0), Ok(()));
        assert_eq!(frames.follow(&frame(SETTINGS, 0, &[]), 0, 0), Ok(()));
        frames
    }

    #[test]
    fn frames_are_found_wherever_reads_end() {
        // Payloads that look like frames.
        let ping = frame(PING, 0, &[0, 0, 8, PING, 0, 0, 0, 0]);
        let bytes = [PREFACE, &frame(SETTINGS, 0, &[]), &frame(DATA, 1, &ping), &ping, &ping].concat();
        for size in 1..bytes.len() {
            let counted = |limit| {
                let mut frames = Frames::new(limit);
                bytes.chunks(size).try_for_each(|bytes| frames.follow(bytes, 0, 0))
            };
            assert_eq!(counted(3), Ok(()), "in pieces of {size}");
            assert!(counted(2).is_err(), "in pieces of {size}");
        }
    }

    #[test]
    fn the_window_of_streams_is_the_last_that_was_set() {
        let set = |settings: &[(u8, [u8; 4])]| {
            frame(
                SETTINGS,
                0,
                &settings.iter().flat_map(|(id, value)| [&[0, *id], &value[..]].concat()).collect::<Vec<_>>(),
            )
        };
        let (window, size) = (INITIAL_WINDOW_SIZE as u8, 5);
        // A payload of another kind, and another setting, that look like it.
        let ping = frame(PING, 0, &[0, window, 0, 0, 0, 9, 0, 0]);
        let bytes = [
            set(&[(window, [0, 0, 0, 1]), (size, [0, window, 0, 0]), (window, [0, 1, 2, 3])]),
            set(&[(size, [0, 0, 0, window])]),
            ping,
        ]
        .concat();
        for pieces in 1..bytes.len() {
            let mut frames = started(10);
            assert_eq!(frames.stream_window(), WINDOW);
            for piece in bytes.chunks(pieces) {
                assert_eq!(frames.follow(piece, 0, 0), Ok(()));
            }
            assert_eq!(frames.stream_window(), 0x1_0203, "in pieces of {pieces}");
        }
    }

    #[test]
    fn each_second_has_its_own_count() {
        let mut frames = started(10);
        for second in 1..5 {
            for _ in 0..10 {
                assert_eq!(frames.follow(&frame(PING, 0, &[0; 8]), second * 1000 + 999, 0), Ok(()));
            }
        }
        assert!(frames.follow(&frame(PING, 0, &[0; 8]), 4999, 0).is_err());
    }

    #[test]
    fn what_is_sent_and_asked_for_earns_frames() {
        let mut frames = started(10);
        let update = frame(WINDOW_UPDATE, 1, &[0, 0, 0, 1]);
        for sent in 0..1000 {
            assert_eq!(frames.follow(&update, 0, sent * BYTES_FOR_ONE), Ok(()));
        }
        let mut frames = started(10);
        for _ in 0..1000 {
            assert_eq!(frames.follow(&[frame(HEADERS, 1, &[]), update.clone(), update.clone()].concat(), 0, 0), Ok(()));
        }
    }

    #[test]
    fn resets_count_more_than_their_requests_earn() {
        let mut frames = started(1000);
        let pair = [frame(HEADERS, 7, &[]), frame(RST_STREAM, 7, &[0; 4])].concat();
        let resets = (0..1000).take_while(|_| frames.follow(&pair, 0, 0).is_ok()).count();
        assert_eq!(resets, 124);
        let fault = frames.fault(Code::EnhanceYourCalm);
        assert_eq!(fault.go_away(), [0, 0, 8, 7, 0, 0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 11]);
    }

    #[test]
    fn a_header_block_lasts_to_the_end_of_its_last_frame() {
        let ends = |kind| [0, 0, 2, kind, END_HEADERS, 0, 0, 0, 1, 0, 0];
        for block in [ends(HEADERS).to_vec(), [&frame(HEADERS, 1, &[0])[..], &ends(CONTINUATION)].concat()] {
            let mut frames = started(10);
            for (at, byte) in block.iter().enumerate() {
                // Before its header is whole nobody knows what a frame is.
                assert_eq!(frames.is_in_block(), at >= HEADER, "before byte {at}");
                assert_eq!(frames.follow(&[*byte], 0, 0), Ok(()));
            }
            assert!(!frames.is_in_block());
        }
    }

    #[test]
    fn the_first_frame_is_settings() {
        for first in [frame(PING, 0, &[0; 8]), vec![0, 0, 0, SETTINGS, ACK, 0, 0, 0, 0]] {
            let mut frames = Frames::new(10);
            let fault = Fault { code: Code::ProtocolError, last_stream: 0 };
            assert_eq!(frames.follow(&[PREFACE, &first].concat(), 0, 0), Err(fault));
        }
    }
}
