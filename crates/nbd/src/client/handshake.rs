//! The haggling of options, client's side (spec: Newstyle negotiation, Option types).
//!
//! The order is fixed: TLS, extended headers, structured replies where those are not to be had,
//! metadata contexts, then the export. What a server does not grant is done without, except TLS
//! where it is required; [`Connected`] says what was had. Nothing is sent before the reply to the
//! last option has come, as the spec demands.

use crate::Violation;
use crate::proto::{self, Mode, limits};
use crate::server::Context;
use crate::wire::string;

use super::haggling::{Haggling, Info, Told, context_request, info_request};
use super::options::{BlockSizeInfo, ClientOptions, Connected, Event, Failure, Goal, Tls};

/// The haggling of options, client's side, by a plan. Feed it what comes from the server; it writes
/// what to send.
#[derive(Debug)]
pub struct Handshake {
    options: ClientOptions,
    haggling: Haggling,
    step: Step,
    mode: Mode,
    tls: bool,
    contexts: Vec<Context>,
    found: Found,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Greeting,
    /// Waiting for replies to an option.
    Option(u32),
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
            haggling: Haggling::new(),
            step: Step::Greeting,
            mode: Mode::Simple,
            tls: false,
            contexts: Vec::new(),
            found: Found::default(),
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
        self.haggling.buffered()
    }

    fn run(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        while !matches!(self.step, Step::Tls | Step::Ended) {
            let (consumed, told) = self.haggling.input(rest)?;
            *rest = &rest[consumed..];
            let Some(told) = told else { return Ok(None) };
            let event = self.told(told, out)?;
            if event.is_some() {
                return Ok(event);
            }
        }
        Ok(None)
    }

    fn told(&mut self, told: Told, out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
        let option = match self.step {
            Step::Option(option) => option,
            Step::Greeting | Step::Tls | Step::Ended => 0,
        };
        match told {
            Told::Newstyle(flags) => self.greeting(flags, out)?,
            Told::Oldstyle { .. } => return Err(Failure::Oldstyle),
            Told::Acknowledged => return self.acknowledged(option, out),
            Told::Refused { code, text } => {
                let failure = Failure::Refused { option, code, text };
                return self.refused(failure, out);
            }
            Told::Entered { size, flags } => {
                self.step = Step::Ended;
                self.found = Found {
                    export: Some((size, flags)),
                    ..Found::default()
                };
                return Ok(Some(Event::Connected(self.connected()?)));
            }
            Told::Export { name, description } => {
                return Ok(Some(Event::Export { name, description }));
            }
            Told::Info(info) => self.info(info),
            Told::Context { name, .. } if option == proto::OPT_LIST_META_CONTEXT => {
                return Ok(Some(Event::Context(name)));
            }
            Told::Context { id, name } => {
                if self.contexts.len() == limits::MAX_CONTEXTS {
                    return Err(Violation::TooManyReplies(option).into());
                }
                self.contexts.push(Context { id, name });
            }
        }
        Ok(None)
    }

    fn greeting(&mut self, flags: u16, out: &mut Vec<u8>) -> Result<(), Failure> {
        let fixed = flags & proto::FLAG_FIXED_NEWSTYLE != 0;
        if !fixed && (self.options.goal != Goal::Go || self.options.tls == Tls::Require) {
            return Err(Failure::NotFixed);
        }
        let mut answer = 0;
        if fixed {
            answer |= proto::FLAG_C_FIXED_NEWSTYLE;
        }
        if flags & proto::FLAG_NO_ZEROES != 0 {
            answer |= proto::FLAG_C_NO_ZEROES;
        }
        self.haggling.answer(answer, out);
        if !fixed {
            self.send_export_name(out);
        } else if self.options.tls == Tls::Off {
            self.after_tls(out);
        } else {
            self.send(proto::OPT_STARTTLS, &[], out);
        }
        Ok(())
    }

    /// An option was granted.
    fn acknowledged(&mut self, option: u32, out: &mut Vec<u8>) -> Result<Option<Event>, Failure> {
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
        let data = info_request(&self.options.export, &infos);
        let go = self.options.goal == Goal::Go;
        self.send(if go { proto::OPT_GO } else { proto::OPT_INFO }, &data, out);
    }

    fn send_contexts(&mut self, option: u32, out: &mut Vec<u8>) {
        let data = context_request(&self.options.export, &self.options.contexts);
        self.send(option, &data, out);
    }

    fn send_export_name(&mut self, out: &mut Vec<u8>) {
        let name = self.options.export.clone();
        self.send(proto::OPT_EXPORT_NAME, name.as_bytes(), out);
    }

    /// The spec has the server reply, and the client not wait for it.
    fn abort(&mut self, out: &mut Vec<u8>) {
        self.send(proto::OPT_ABORT, &[], out);
        self.step = Step::Ended;
    }

    fn send(&mut self, option: u32, data: &[u8], out: &mut Vec<u8>) {
        self.haggling.send(option, data, out);
        self.step = Step::Option(option);
    }

    /// Takes note of one fact; unknown ones are ignored.
    fn info(&mut self, info: Info) {
        match info {
            Info::Export { size, flags } => self.found.export = Some((size, flags)),
            Info::Name(name) => self.found.name = Some(name),
            Info::Description(text) => self.found.description = Some(text),
            Info::BlockSizes(sizes) => self.found.block_sizes = Some(sizes),
            Info::Other(_) => {}
        }
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

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
