//! One option after the other, client's side: what [`Handshake`](super::Handshake) and clients that
//! choose every option themselves are made of.
//!
//! It knows which bytes make a message and whether they answer what was asked, and nothing of what
//! to ask next. A server can make it hold one reply (64 KiB) in memory, and send so many replies to one
//! option as [`limits`] allow.

use crate::Violation;
use crate::proto::{self, limits};
use crate::wire::{Reader, string};

use super::options::BlockSizeInfo;

/// The haggling of one connection. Feed it what comes from the server.
#[derive(Debug)]
pub struct Haggling {
    step: Step,
    partial: Vec<u8>,
    no_zeroes: bool,
    /// Replies to the option in hand.
    replies: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greeting,
    /// An option can be sent.
    Idle,
    /// Waiting for the reply to an option.
    Option(u32),
    /// Waiting for the answer to `OPT_EXPORT_NAME`, which has no header.
    ExportName,
    /// The transmission phase, or the end.
    Ended,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Told {
    /// The greeting of a newstyle server, with its handshake flags. [`Haggling::answer`] it.
    Newstyle(u16),
    /// The greeting of an oldstyle server: the transmission phase has begun.
    Oldstyle {
        /// Size of its only export, in bytes.
        size: u64,
        /// Transmission flags.
        flags: u16,
    },
    /// Yes, or all was told: ends the option. After `OPT_GO` the transmission phase has begun.
    Acknowledged,
    /// No: ends the option.
    Refused {
        /// One of the `REP_ERR_` codes.
        code: u32,
        /// The server's text for people; may be empty.
        text: String,
    },
    /// The answer to `OPT_EXPORT_NAME`: the transmission phase has begun.
    Entered {
        /// Size of the export, in bytes.
        size: u64,
        /// Transmission flags.
        flags: u16,
    },
    /// One export of a list.
    Export {
        /// Name.
        name: String,
        /// Description; may be empty.
        description: String,
    },
    /// One fact about an export.
    Info(Info),
    /// One metadata context.
    Context {
        /// Its number in block status; means nothing in a list.
        id: u32,
        /// Name.
        name: String,
    },
}

/// A fact about an export.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Info {
    /// Size and flags.
    Export {
        /// Size in bytes.
        size: u64,
        /// Transmission flags.
        flags: u16,
    },
    /// Canonical name.
    Name(String),
    /// Description.
    Description(String),
    /// Block sizes.
    BlockSizes(BlockSizeInfo),
    /// A fact of a type that is not known; to be ignored.
    Other(u16),
}

impl Default for Haggling {
    fn default() -> Haggling {
        Haggling::new()
    }
}

impl Haggling {
    /// A machine at the start of a connection.
    pub fn new() -> Haggling {
        Haggling {
            step: Step::Greeting,
            partial: Vec::new(),
            no_zeroes: false,
            replies: 0,
        }
    }

    /// Takes bytes from the server. Returns how many were consumed, and what they say if a message
    /// is complete. Without one, all were consumed, except while no message is due, when none
    /// are.
    ///
    /// # Errors
    ///
    /// A [`Violation`], after which the machine consumes nothing.
    pub fn input(&mut self, bytes: &[u8]) -> Result<(usize, Option<Told>), Violation> {
        let mut rest = bytes;
        let result = self.message(&mut rest);
        if result.is_err() {
            self.step = Step::Ended;
        }
        result.map(|told| (bytes.len() - rest.len(), told))
    }

    /// Answers the greeting with client flags; then options can be sent.
    ///
    /// # Panics
    ///
    /// If there was no [`Told::Newstyle`] just before.
    pub fn answer(&mut self, flags: u32, out: &mut Vec<u8>) {
        assert_eq!(self.step, Step::Idle, "there is no greeting to answer");
        self.no_zeroes = flags & proto::FLAG_C_NO_ZEROES != 0;
        out.extend_from_slice(&flags.to_be_bytes());
    }

    /// Sends an option.
    ///
    /// # Panics
    ///
    /// If the last one is not over: options have no marks by which replies could be told apart.
    pub fn send(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        assert_eq!(self.step, Step::Idle, "another option is under way");
        out.extend_from_slice(&proto::OPT_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.to_be_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        self.step = match option {
            proto::OPT_EXPORT_NAME => Step::ExportName,
            _ => Step::Option(option),
        };
        self.replies = 0;
    }

    /// An option can be sent.
    pub fn is_idle(&self) -> bool {
        self.step == Step::Idle
    }

    /// No more is taken from the server.
    pub fn end(&mut self) {
        self.step = Step::Ended;
    }

    /// Bytes held back until the rest of their message comes.
    pub(crate) fn buffered(&self) -> usize {
        self.partial.len()
    }

    fn message(&mut self, rest: &mut &[u8]) -> Result<Option<Told>, Violation> {
        match self.step {
            Step::Idle | Step::Ended => Ok(None),
            Step::Greeting => self.greeting(rest),
            Step::ExportName => {
                let padding = match self.no_zeroes {
                    true => 0,
                    false => proto::EXPORT_NAME_PADDING,
                };
                if !self.fill(rest, 10 + padding) {
                    return Ok(None);
                }
                let message = std::mem::take(&mut self.partial);
                let mut reader = Reader(&message);
                self.step = Step::Ended;
                Ok(Some(Told::Entered {
                    size: reader.u64().expect("filled"),
                    flags: reader.u16().expect("filled"),
                }))
            }
            Step::Option(option) => {
                if !self.fill(rest, proto::OPTION_REPLY_HEADER_LEN) {
                    return Ok(None);
                }
                let (kind, length) = self.reply_header(option)?;
                if !self.fill(rest, proto::OPTION_REPLY_HEADER_LEN + length) {
                    return Ok(None);
                }
                let message = std::mem::take(&mut self.partial);
                let data = &message[proto::OPTION_REPLY_HEADER_LEN..];
                self.reply(option, kind, data).map(Some)
            }
        }
    }

    /// Moves bytes to `partial` until it has `length`; false if they ran out.
    fn fill(&mut self, rest: &mut &[u8], length: usize) -> bool {
        let missing = length.saturating_sub(self.partial.len());
        let (now, later) = rest.split_at(rest.len().min(missing));
        self.partial.extend_from_slice(now);
        *rest = later;
        self.partial.len() >= length
    }

    fn greeting(&mut self, rest: &mut &[u8]) -> Result<Option<Told>, Violation> {
        if !self.fill(rest, proto::GREETING_LEN) {
            return Ok(None);
        }
        let mut reader = Reader(&self.partial);
        let magic = reader.u64().expect("filled");
        let second = reader.u64().expect("filled");
        match (magic, second) {
            (proto::INIT_MAGIC, proto::OPT_MAGIC) => {
                let flags = reader.u16().expect("filled");
                self.partial.clear();
                self.step = Step::Idle;
                Ok(Some(Told::Newstyle(flags)))
            }
            (proto::INIT_MAGIC, proto::OLDSTYLE_MAGIC) => {
                if !self.fill(rest, proto::OLDSTYLE_LEN) {
                    return Ok(None);
                }
                let message = std::mem::take(&mut self.partial);
                let mut reader = Reader(&message[16..]);
                let size = reader.u64().expect("filled");
                // The upper half of the flags is the handshake's, and empty in this style.
                let flags = reader.u32().expect("filled") as u16;
                self.step = Step::Ended;
                Ok(Some(Told::Oldstyle { size, flags }))
            }
            (proto::INIT_MAGIC, other) | (other, _) => Err(Violation::GreetingMagic(other)),
        }
    }

    /// The type and the length of the reply whose header is in `partial`.
    fn reply_header(&self, option: u32) -> Result<(u32, usize), Violation> {
        let mut reader = Reader(&self.partial);
        let magic = reader.u64().expect("filled");
        let told = reader.u32().expect("filled");
        let kind = reader.u32().expect("filled");
        let length = reader.u32().expect("filled");
        if magic != proto::REP_MAGIC {
            return Err(Violation::OptionReplyMagic(magic));
        }
        if told != option {
            return Err(Violation::OptionReply {
                option: told,
                reply: kind,
            });
        }
        if length > limits::MAX_OPTION_DATA {
            return Err(Violation::OptionReplyData(option));
        }
        Ok((kind, length as usize))
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<Told, Violation> {
        self.replies += 1;
        let most = match option {
            proto::OPT_LIST => limits::MAX_EXPORTS,
            _ => limits::MAX_OPTIONS as usize,
        };
        if self.replies > most + 1 {
            return Err(Violation::TooManyReplies(option));
        }
        if kind & proto::REP_FLAG_ERROR != 0 {
            let text = String::from_utf8_lossy(&data[..data.len().min(limits::MAX_STRING)]);
            self.step = Step::Idle;
            return Ok(Told::Refused {
                code: kind,
                text: text.into(),
            });
        }
        let malformed = Violation::OptionReplyData(option);
        match (option, kind) {
            (_, proto::REP_ACK) if !data.is_empty() => Err(malformed),
            (_, proto::REP_ACK) => {
                self.step = match option {
                    proto::OPT_GO => Step::Ended,
                    _ => Step::Idle,
                };
                Ok(Told::Acknowledged)
            }
            (proto::OPT_LIST, proto::REP_SERVER) => {
                let mut reader = Reader(data);
                let name = reader.string().ok_or(malformed)?.to_owned();
                let description = String::from_utf8_lossy(reader.0).into_owned();
                Ok(Told::Export { name, description })
            }
            (proto::OPT_INFO | proto::OPT_GO, proto::REP_INFO) => {
                info(data).map(Told::Info).ok_or(malformed)
            }
            (
                proto::OPT_SET_META_CONTEXT | proto::OPT_LIST_META_CONTEXT,
                proto::REP_META_CONTEXT,
            ) => {
                let mut reader = Reader(data);
                let id = reader.u32().ok_or(malformed)?;
                let name = string(reader.0).ok_or(malformed)?.to_owned();
                Ok(Told::Context { id, name })
            }
            _ => Err(Violation::OptionReply {
                option,
                reply: kind,
            }),
        }
    }
}

/// One `REP_INFO`.
fn info(data: &[u8]) -> Option<Info> {
    let mut reader = Reader(data);
    Some(match reader.u16()? {
        proto::INFO_EXPORT if data.len() == 12 => Info::Export {
            size: reader.u64()?,
            flags: reader.u16()?,
        },
        proto::INFO_NAME => Info::Name(string(reader.0)?.to_owned()),
        proto::INFO_DESCRIPTION => Info::Description(string(reader.0)?.to_owned()),
        proto::INFO_BLOCK_SIZE if data.len() == 14 => Info::BlockSizes(BlockSizeInfo {
            minimum: reader.u32()?,
            preferred: reader.u32()?,
            maximum: reader.u32()?,
        }),
        proto::INFO_EXPORT | proto::INFO_BLOCK_SIZE => return None,
        other => Info::Other(other),
    })
}

/// The data of `OPT_GO` and `OPT_INFO`: the export, and what is wanted to be told of it.
pub fn info_request(export: &str, infos: &[u16]) -> Vec<u8> {
    let mut data = prefixed(export);
    data.extend_from_slice(&(infos.len() as u16).to_be_bytes());
    data.extend(infos.iter().flat_map(|info| info.to_be_bytes()));
    data
}

/// The data of `OPT_SET_META_CONTEXT` and `OPT_LIST_META_CONTEXT`.
pub fn context_request<S: AsRef<str>>(export: &str, queries: &[S]) -> Vec<u8> {
    let mut data = prefixed(export);
    data.extend_from_slice(&(queries.len() as u32).to_be_bytes());
    for query in queries {
        data.extend_from_slice(&prefixed(query.as_ref()));
    }
    data
}

/// A string with its length before it.
fn prefixed(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
#[path = "haggling_tests.rs"]
mod tests;
