//! The haggling of options, client's side (spec: Newstyle negotiation, Option types).
//!
//! The order is fixed: TLS, extended headers, structured replies where those are not to be had,
//! metadata contexts, then the export. What a server does not grant is done without, except TLS
//! where it is required; [`Connected`] says what was had. Nothing is sent before the reply to the
//! last option has come, as the spec demands.

use crate::Violation;
use crate::proto::{self, Mode, limits};
use crate::server::Context;
use crate::wire::{Reader, string};

use super::options::{BlockSizeInfo, ClientOptions, Connected, Event, Failure, Goal, Tls};

/// The haggling of options, client's side. Feed it what comes from the server; it writes what to
/// send.
#[derive(Debug)]
pub struct Handshake {
    options: ClientOptions,
    step: Step,
    partial: Vec<u8>,
    no_zeroes: bool,
    mode: Mode,
    tls: bool,
    contexts: Vec<Context>,
    found: Found,
    /// Replies to the option in hand.
    replies: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greeting,
    /// Waiting for the reply to an option.
    Option(u32),
    /// Waiting for the answer to `OPT_EXPORT_NAME`, which has no header.
    ExportName,
    /// The driver is busy with TLS.
    Tls,
    Ended,
}

/// Facts about the export that have come so far.
#[derive(Debug, Default)]
struct Found {
    export: Option<(u64, u16)>,
    block_sizes: Option<BlockSizeInfo>,
    name: Option<String>,
    description: Option<String>,
}

impl Handshake {
    /// A machine at the start of a connection.
    ///
    /// # Errors
    ///
    /// [`Failure::BadName`].
    pub fn new(options: ClientOptions) -> Result<Handshake, Failure> {
        let mut names = std::iter::once(&options.export).chain(&options.contexts);
        let fits = options.contexts.len() <= limits::MAX_QUERIES as usize;
        if !fits || names.any(|name| string(name.as_bytes()).is_none()) {
            return Err(Failure::BadName);
        }
        Ok(Handshake {
            options,
            step: Step::Greeting,
            partial: Vec::new(),
            no_zeroes: false,
            mode: Mode::Simple,
            tls: false,
            contexts: Vec::new(),
            found: Found::default(),
            replies: 0,
        })
    }

    /// Takes bytes from the server, and writes options to `out`. Returns how many bytes were
    /// consumed, and an event if one stopped it. Without an event, all were consumed, except while
    /// TLS is due or after the end, when none are.
    ///
    /// # Errors
    ///
    /// A [`Failure`], after which the machine consumes nothing. What is in `out` (it may be an
    /// `OPT_ABORT`) should be sent before closing.
    pub fn input(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Event>), Failure> {
        let mut rest = bytes;
        let result = self.run(&mut rest, out);
        if result.is_err() {
            self.step = Step::Ended;
        }
        result.map(|event| (bytes.len() - rest.len(), event))
    }

    /// After [`Event::StartTls`]: TLS runs, from here all bytes go through it. `unread` is how many
    /// bytes came in the clear that were not consumed; TLS bytes that already came do not count.
    ///
    /// # Errors
    ///
    /// [`Violation::PlainTextAfterStartTls`] if `unread` is not 0.
    ///
    /// # Panics
    ///
    /// If the machine did not ask for TLS.
    pub fn tls_started(&mut self, unread: usize, out: &mut Vec<u8>) -> Result<(), Failure> {
        assert_eq!(self.step, Step::Tls, "TLS was not asked for");
        if unread != 0 {
            self.step = Step::Ended;
            return Err(Violation::PlainTextAfterStartTls.into());
        }
        self.tls = true;
        self.after_tls(out);
        Ok(())
    }

    /// Bytes held back until the rest of their message comes.
    pub(crate) fn buffered(&self) -> usize {
        self.partial.len()
    }

    fn run(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        loop {
            match self.step {
                Step::Tls | Step::Ended => return Ok(None),
                Step::Greeting => {
                    if !self.fill(rest, proto::GREETING_LEN) {
                        return Ok(None);
                    }
                    self.greeting(out)?;
                    self.partial.clear();
                }
                Step::ExportName => {
                    let padding = if self.no_zeroes {
                        0
                    } else {
                        proto::EXPORT_NAME_PADDING
                    };
                    if !self.fill(rest, 10 + padding) {
                        return Ok(None);
                    }
                    let mut reader = Reader(&self.partial);
                    self.found = Found {
                        export: reader.u64().zip(reader.u16()),
                        ..Found::default()
                    };
                    self.partial.clear();
                    self.step = Step::Ended;
                    return Ok(Some(Event::Connected(self.connected()?)));
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
                    let event = self.reply(option, kind, data, out)?;
                    if event.is_some() {
                        return Ok(event);
                    }
                }
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

    fn greeting(&mut self, out: &mut Vec<u8>) -> Result<(), Failure> {
        let mut reader = Reader(&self.partial);
        let magic = reader.u64().expect("filled");
        let second = reader.u64().expect("filled");
        let flags = reader.u16().expect("filled");
        match (magic, second) {
            (proto::INIT_MAGIC, proto::OPT_MAGIC) => {}
            (proto::INIT_MAGIC, proto::OLDSTYLE_MAGIC) => return Err(Failure::Oldstyle),
            (proto::INIT_MAGIC, other) | (other, _) => {
                return Err(Violation::GreetingMagic(other).into());
            }
        }
        let fixed = flags & proto::FLAG_FIXED_NEWSTYLE != 0;
        self.no_zeroes = flags & proto::FLAG_NO_ZEROES != 0;
        if !fixed && (self.options.goal != Goal::Go || self.options.tls == Tls::Require) {
            return Err(Failure::NotFixed);
        }
        let mut answer = 0;
        if fixed {
            answer |= proto::FLAG_C_FIXED_NEWSTYLE;
        }
        if self.no_zeroes {
            answer |= proto::FLAG_C_NO_ZEROES;
        }
        out.extend_from_slice(&answer.to_be_bytes());
        if !fixed {
            self.send_export_name(out);
        } else if self.options.tls == Tls::Off {
            self.after_tls(out);
        } else {
            self.send(proto::OPT_STARTTLS, &[], out);
        }
        Ok(())
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

    fn reply(
        &mut self,
        option: u32,
        kind: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Failure> {
        self.replies += 1;
        let most = match option {
            proto::OPT_LIST => limits::MAX_EXPORTS,
            _ => limits::MAX_OPTIONS as usize,
        };
        if self.replies > most + 1 {
            return Err(Violation::TooManyReplies(option).into());
        }
        if kind & proto::REP_FLAG_ERROR != 0 {
            let text = String::from_utf8_lossy(&data[..data.len().min(limits::MAX_STRING)]);
            return self.refused(
                Failure::Refused {
                    option,
                    code: kind,
                    text: text.into(),
                },
                out,
            );
        }
        if kind == proto::REP_ACK {
            return self.acknowledged(option, data, out);
        }
        let malformed = Violation::OptionReplyData(option);
        match (option, kind) {
            (proto::OPT_LIST, proto::REP_SERVER) => {
                let mut reader = Reader(data);
                let name = reader.string().ok_or(malformed)?.to_owned();
                let description = String::from_utf8_lossy(reader.0).into_owned();
                Ok(Some(Event::Export { name, description }))
            }
            (proto::OPT_INFO | proto::OPT_GO, proto::REP_INFO) => {
                self.info(data).ok_or(malformed)?;
                Ok(None)
            }
            (
                proto::OPT_SET_META_CONTEXT | proto::OPT_LIST_META_CONTEXT,
                proto::REP_META_CONTEXT,
            ) => {
                let mut reader = Reader(data);
                let id = reader.u32().ok_or(malformed)?;
                let name = string(reader.0).ok_or(malformed)?.to_owned();
                if option == proto::OPT_LIST_META_CONTEXT {
                    return Ok(Some(Event::Context(name)));
                }
                if self.contexts.len() == limits::MAX_CONTEXTS {
                    return Err(Violation::TooManyReplies(option).into());
                }
                self.contexts.push(Context { id, name });
                Ok(None)
            }
            _ => Err(Violation::OptionReply {
                option,
                reply: kind,
            }
            .into()),
        }
    }

    /// An option was granted.
    fn acknowledged(
        &mut self,
        option: u32,
        data: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Failure> {
        if !data.is_empty() {
            return Err(Violation::OptionReplyData(option).into());
        }
        match option {
            proto::OPT_STARTTLS => {
                self.step = Step::Tls;
                return Ok(Some(Event::StartTls));
            }
            proto::OPT_EXTENDED_HEADERS => {
                self.mode = Mode::Extended;
                self.after_mode(out);
            }
            proto::OPT_STRUCTURED_REPLY => {
                self.mode = Mode::Structured;
                self.after_mode(out);
            }
            proto::OPT_SET_META_CONTEXT => self.choose(out),
            proto::OPT_GO => {
                self.step = Step::Ended;
                return Ok(Some(Event::Connected(self.connected()?)));
            }
            proto::OPT_INFO => {
                let connected = self.connected()?;
                self.abort(out);
                return Ok(Some(Event::Info(connected)));
            }
            _ => {
                self.abort(out);
                return Ok(Some(Event::Finished));
            }
        }
        Ok(None)
    }

    /// An option was refused; most can be done without.
    fn refused(&mut self, failure: Failure, out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        let Failure::Refused { option, code, .. } = failure else {
            return Err(failure);
        };
        match option {
            proto::OPT_STARTTLS if self.options.tls == Tls::Try => self.after_tls(out),
            proto::OPT_EXTENDED_HEADERS => self.send(proto::OPT_STRUCTURED_REPLY, &[], out),
            proto::OPT_STRUCTURED_REPLY => self.after_mode(out),
            proto::OPT_SET_META_CONTEXT => {
                self.contexts.clear();
                self.choose(out);
            }
            // Old servers know only the other way in.
            proto::OPT_GO if code == proto::REP_ERR_UNSUP && !self.mode.is_extended() => {
                self.send_export_name(out);
            }
            _ => {
                self.abort(out);
                return Err(failure);
            }
        }
        Ok(None)
    }

    fn after_tls(&mut self, out: &mut Vec<u8>) {
        match (self.options.goal, self.options.mode) {
            (Goal::List, _) => self.send(proto::OPT_LIST, &[], out),
            (_, Mode::Extended) => self.send(proto::OPT_EXTENDED_HEADERS, &[], out),
            (_, Mode::Structured) => self.send(proto::OPT_STRUCTURED_REPLY, &[], out),
            (_, Mode::Simple) => self.after_mode(out),
        }
    }

    fn after_mode(&mut self, out: &mut Vec<u8>) {
        if self.options.goal == Goal::ListContexts {
            self.send_contexts(proto::OPT_LIST_META_CONTEXT, out);
        } else if self.mode.has_chunks() && !self.options.contexts.is_empty() {
            self.send_contexts(proto::OPT_SET_META_CONTEXT, out);
        } else {
            self.choose(out);
        }
    }

    fn choose(&mut self, out: &mut Vec<u8>) {
        let mut infos: Vec<u16> = Vec::new();
        if self.options.full_info {
            infos.extend([proto::INFO_NAME, proto::INFO_DESCRIPTION]);
        }
        if self.options.block_size {
            infos.push(proto::INFO_BLOCK_SIZE);
        }
        let mut data = prefixed(&self.options.export);
        data.extend_from_slice(&(infos.len() as u16).to_be_bytes());
        data.extend(infos.into_iter().flat_map(u16::to_be_bytes));
        let go = self.options.goal == Goal::Go;
        self.send(if go { proto::OPT_GO } else { proto::OPT_INFO }, &data, out);
    }

    fn send_contexts(&mut self, option: u32, out: &mut Vec<u8>) {
        let mut data = prefixed(&self.options.export);
        data.extend_from_slice(&(self.options.contexts.len() as u32).to_be_bytes());
        for context in &self.options.contexts {
            data.extend_from_slice(&prefixed(context));
        }
        self.send(option, &data, out);
    }

    fn send_export_name(&mut self, out: &mut Vec<u8>) {
        let name = self.options.export.clone();
        self.send(proto::OPT_EXPORT_NAME, name.as_bytes(), out);
        self.step = Step::ExportName;
    }

    /// The spec has the server reply, and the client not wait for it.
    fn abort(&mut self, out: &mut Vec<u8>) {
        self.send(proto::OPT_ABORT, &[], out);
        self.step = Step::Ended;
    }

    fn send(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        out.extend_from_slice(&proto::OPT_MAGIC.to_be_bytes());
        out.extend_from_slice(&option.to_be_bytes());
        out.extend_from_slice(&(data.len() as u32).to_be_bytes());
        out.extend_from_slice(data);
        self.step = Step::Option(option);
        self.replies = 0;
    }

    /// Takes note of one `REP_INFO`; unknown ones are ignored.
    fn info(&mut self, data: &[u8]) -> Option<()> {
        let mut reader = Reader(data);
        match reader.u16()? {
            proto::INFO_EXPORT if data.len() == 12 => {
                self.found.export = reader.u64().zip(reader.u16());
            }
            proto::INFO_NAME => self.found.name = Some(string(reader.0)?.to_owned()),
            proto::INFO_DESCRIPTION => {
                self.found.description = Some(string(reader.0)?.to_owned());
            }
            proto::INFO_BLOCK_SIZE if data.len() == 14 => {
                let (minimum, preferred, maximum) = (reader.u32()?, reader.u32()?, reader.u32()?);
                self.found.block_sizes = Some(BlockSizeInfo {
                    minimum,
                    preferred,
                    maximum,
                });
            }
            proto::INFO_EXPORT | proto::INFO_BLOCK_SIZE => return None,
            _ => {}
        }
        Some(())
    }

    fn connected(&mut self) -> Result<Connected, Violation> {
        let found = std::mem::take(&mut self.found);
        let (size, flags) = found.export.ok_or(Violation::NoExportInfo)?;
        Ok(Connected {
            size,
            flags,
            block_sizes: found.block_sizes,
            name: found.name,
            description: found.description,
            mode: self.mode,
            contexts: std::mem::take(&mut self.contexts),
            tls: self.tls,
        })
    }
}

/// A string with its length before it.
fn prefixed(text: &str) -> Vec<u8> {
    let mut bytes = (text.len() as u32).to_be_bytes().to_vec();
    bytes.extend_from_slice(text.as_bytes());
    bytes
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
