//! The haggling of options, server's side (spec: Newstyle negotiation, Option types).
//!
//! Bytes may come in any pieces. At most one option's data is kept, up to
//! [`MAX_OPTION_DATA`](limits::MAX_OPTION_DATA), and it grows with what has come, not with what was
//! announced. Options that need to know an export become an [`Event`]; while an answer is due
//! nothing more is consumed, so the driver may take its time. All other options are answered here.

use super::answer::{block_size_info, describe, option_of, refuse, reply};
use super::export::BlockSizePolicy;
use super::export::{Context, ExportInfo, Negotiated, Refused, ServerOptions, TlsMode};
use super::options::{self, ContextRequest, OpenRequest, Purpose};
use super::told;
use super::transmission::Served;
use crate::Violation;
use crate::proto::{self, Mode, limits};
use crate::wire::{Reader, clip, string};

/// Something the driver must do. Every event but `Abort` has its `answer_` method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Give the exports to [`Handshake::answer_list`].
    List,
    /// Open the export, give it to [`Handshake::answer_open`].
    Open(OpenRequest),
    /// Give the contexts of the export to [`Handshake::answer_contexts`].
    MetaContext(ContextRequest),
    /// Decide, then [`Handshake::answer_start_tls`].
    StartTls,
    /// The client is leaving: send what is in `out`, then close.
    Abort,
}

/// The haggling of options, server's side. Feed it what comes from the client, answer its events.
/// Bytes may come in any pieces; at most 64 KiB of them are held.
#[derive(Debug)]
pub struct Handshake {
    options: ServerOptions,
    state: State,
    /// Start of a header or of an option's data that has not come in full.
    partial: Vec<u8>,
    /// The client answered with `FLAG_C_FIXED_NEWSTYLE`.
    fixed: bool,
    /// The client answered with `FLAG_C_NO_ZEROES`.
    no_zeroes: bool,
    tls: bool,
    shutting_down: bool,
    seen: u32,
    mode: Mode,
    /// Contexts selected last, and the name of the export they were selected for.
    selected: Option<(String, Vec<Context>)>,
}

#[derive(Debug)]
enum State {
    ClientFlags,
    Header,
    Data { option: u32, length: usize },
    Skip { option: u32, left: u32 },
    Due(Due),
    Ended,
}

/// What the driver owes an answer to.
#[derive(Debug)]
enum Due {
    List,
    Open(OpenRequest),
    Contexts(ContextRequest),
    StartTls,
}

impl Handshake {
    /// A machine at the start of a connection.
    pub fn new(options: ServerOptions) -> Handshake {
        Handshake {
            options,
            state: State::ClientFlags,
            partial: Vec::new(),
            fixed: false,
            no_zeroes: false,
            tls: false,
            shutting_down: false,
            seen: 0,
            mode: Mode::Simple,
            selected: None,
        }
    }

    /// What to send before anything is received.
    pub fn greeting(&self) -> [u8; proto::GREETING_LEN] {
        told::greeting(self.handshake_flags());
        let mut bytes = [0; proto::GREETING_LEN];
        bytes[..8].copy_from_slice(&proto::INIT_MAGIC.to_be_bytes());
        bytes[8..16].copy_from_slice(&proto::OPT_MAGIC.to_be_bytes());
        bytes[16..].copy_from_slice(&self.handshake_flags().to_be_bytes());
        bytes
    }

    /// Whether TLS was started on this connection.
    pub fn tls(&self) -> bool {
        self.tls
    }

    /// From now on refuse every option but `OPT_ABORT` with `REP_ERR_SHUTDOWN`
    /// (spec: Termination of the session during option haggling).
    pub fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    /// Takes bytes from the client, and writes replies to `out`. Returns how many bytes were
    /// consumed, and an event if one stopped it. Without an event, all were consumed, except while
    /// an answer is due or after the end, when none are.
    ///
    /// # Errors
    ///
    /// A [`Violation`], after which the machine consumes nothing. What is in `out` may be sent.
    pub fn input(
        &mut self,
        bytes: &[u8],
        out: &mut Vec<u8>,
    ) -> Result<(usize, Option<Event>), Violation> {
        let mut rest = bytes;
        let result = self.run(&mut rest, out);
        if result.is_err() {
            self.state = State::Ended;
        }
        result.map(|event| (bytes.len() - rest.len(), event))
    }

    /// Answers [`Event::List`] with names and descriptions (empty for none). Names that the
    /// protocol cannot carry (above 4096 bytes, or with a NUL) are left out: no client could open
    /// them.
    ///
    /// # Panics
    ///
    /// If no such answer is due.
    pub fn answer_list<N: AsRef<str>, D: AsRef<str>>(
        &mut self,
        answer: Result<impl IntoIterator<Item = (N, D)>, Refused>,
        out: &mut Vec<u8>,
    ) {
        let State::Due(Due::List) = self.state else {
            panic!("no list is due")
        };
        self.state = State::Header;
        match answer {
            Err(refused) => refuse(out, proto::OPT_LIST, &refused),
            Ok(exports) => {
                for (name, description) in exports {
                    let (name, description) = (name.as_ref(), clip(description.as_ref()));
                    if string(name.as_bytes()).is_none() {
                        continue;
                    }
                    let length = (name.len() as u32).to_be_bytes();
                    let data = [&length, name.as_bytes(), description.as_bytes()];
                    reply(out, proto::OPT_LIST, proto::REP_SERVER, &data);
                }
                reply(out, proto::OPT_LIST, proto::REP_ACK, &[]);
            }
        }
    }

    /// Answers [`Event::Open`]. Returns what was agreed on when the transmission phase begins;
    /// bytes not yet consumed are then requests.
    ///
    /// # Errors
    ///
    /// [`Violation::ExportRefused`] if the client used `OPT_EXPORT_NAME`, which knows no error
    /// reply: close the connection.
    ///
    /// # Panics
    ///
    /// If no such answer is due.
    pub fn answer_open(
        &mut self,
        answer: Result<ExportInfo, Refused>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Negotiated>, Violation> {
        let state = std::mem::replace(&mut self.state, State::Header);
        let State::Due(Due::Open(request)) = state else {
            panic!("no export is due")
        };
        let answer = answer.and_then(|info| self.accept_block_sizes(&request, info, out));
        match (answer, request.purpose) {
            (Err(_), Purpose::ExportName) => {
                self.state = State::Ended;
                Err(Violation::ExportRefused)
            }
            (Err(refused), purpose) => {
                refuse(out, option_of(purpose), &refused);
                Ok(None)
            }
            (Ok(info), Purpose::ExportName) => {
                let wants = request.clone();
                let negotiated = self.enter(request, &info);
                told::granted(&wants, negotiated.served.flags, &info);
                out.extend_from_slice(&info.size.to_be_bytes());
                out.extend_from_slice(&negotiated.served.flags.to_be_bytes());
                if !self.no_zeroes {
                    out.extend_from_slice(&[0; proto::EXPORT_NAME_PADDING]);
                }
                Ok(Some(negotiated))
            }
            (Ok(info), Purpose::Info) => {
                // Described as it would be entered, but nothing is used up.
                let contexts = self.contexts_for(&request.name).map_or(0, Vec::len);
                let served = self.served(&request, &info, contexts);
                told::granted(&request, served.flags, &info);
                describe(out, &request, &info, served.flags);
                Ok(None)
            }
            (Ok(info), Purpose::Go) => {
                let wants = request.clone();
                let negotiated = self.enter(request, &info);
                told::granted(&wants, negotiated.served.flags, &info);
                describe(out, &wants, &info, negotiated.served.flags);
                Ok(Some(negotiated))
            }
        }
    }

    /// Answers [`Event::MetaContext`] with all contexts of that export; the machine picks those
    /// that the client asked for. Their ids must differ.
    ///
    /// # Panics
    ///
    /// If no such answer is due.
    pub fn answer_contexts(&mut self, answer: Result<&[Context], Refused>, out: &mut Vec<u8>) {
        let state = std::mem::replace(&mut self.state, State::Header);
        let State::Due(Due::Contexts(request)) = state else {
            panic!("no contexts are due")
        };
        let option = request.option();
        let offered = match answer {
            Ok(offered) => offered,
            Err(refused) => return refuse(out, option, &refused),
        };
        let matching = || {
            offered.iter().filter(|context| {
                string(context.name.as_bytes()).is_some() && request.matches(&context.name)
            })
        };
        if request.list {
            for context in matching() {
                told::context(option, context, 0);
                let name = context.name.as_bytes();
                reply(out, option, proto::REP_META_CONTEXT, &[&[0; 4], name]);
            }
        } else {
            let chosen: Vec<Context> = matching().take(limits::MAX_CONTEXTS + 1).cloned().collect();
            if chosen.len() > limits::MAX_CONTEXTS {
                let refused = Refused::new(proto::REP_ERR_TOO_BIG, "too many metadata contexts");
                return refuse(out, option, &refused);
            }
            for context in &chosen {
                told::context(option, context, context.id);
                let (id, name) = (context.id.to_be_bytes(), context.name.as_bytes());
                reply(out, option, proto::REP_META_CONTEXT, &[&id, name]);
            }
            self.selected = Some((request.name, chosen));
        }
        reply(out, option, proto::REP_ACK, &[]);
    }

    /// Answers [`Event::StartTls`]. After `Ok`: send `out`, run the TLS handshake on the
    /// connection (close it if that fails), and feed what comes out of TLS to [`Handshake::input`].
    /// All that was agreed on before is forgotten. `unread` is how many bytes the driver has
    /// received in the clear that were not consumed.
    ///
    /// # Errors
    ///
    /// [`Violation::PlainTextAfterStartTls`] if `unread` is not 0: the client has to wait for the
    /// reply, so those bytes may be someone else's.
    ///
    /// # Panics
    ///
    /// If no such answer is due.
    pub fn answer_start_tls(
        &mut self,
        answer: Result<(), Refused>,
        unread: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Violation> {
        let State::Due(Due::StartTls) = self.state else {
            panic!("no TLS answer is due")
        };
        self.state = State::Header;
        match answer {
            Err(refused) => refuse(out, proto::OPT_STARTTLS, &refused),
            Ok(()) if unread != 0 => {
                self.state = State::Ended;
                return Err(Violation::PlainTextAfterStartTls);
            }
            Ok(()) => {
                reply(out, proto::OPT_STARTTLS, proto::REP_ACK, &[]);
                self.tls = true;
                self.mode = Mode::Simple;
                self.selected = None;
            }
        }
        Ok(())
    }

    /// Nothing is agreed on and nothing is held.
    pub(crate) fn is_fresh(&self) -> bool {
        self.mode == Mode::Simple && self.selected.is_none() && self.partial.is_empty()
    }

    /// Bytes held back until the rest of their option comes.
    pub(crate) fn buffered(&self) -> usize {
        self.partial.len()
    }

    fn run(&mut self, rest: &mut &[u8], out: &mut Vec<u8>) -> Result<Option<Event>, Violation> {
        loop {
            match self.state {
                State::ClientFlags => {
                    if !self.fill(rest, 4) {
                        return Ok(None);
                    }
                    let flags = Reader(&self.partial).u32().expect("filled");
                    self.partial.clear();
                    self.client_flags(flags)?;
                    self.state = State::Header;
                }
                State::Header => {
                    if !self.fill(rest, proto::OPTION_HEADER_LEN) {
                        return Ok(None);
                    }
                    self.state = self.header()?;
                    self.partial.clear();
                }
                State::Data { option, length } => {
                    if !self.fill(rest, length) {
                        return Ok(None);
                    }
                    self.state = State::Header;
                    let data = std::mem::take(&mut self.partial);
                    let event = self.option(option, Some(&data), out)?;
                    if event.is_some() {
                        return Ok(event);
                    }
                }
                State::Skip { option, left } => {
                    let now = rest.len().min(left as usize);
                    *rest = &rest[now..];
                    let left = left - now as u32;
                    if left != 0 {
                        self.state = State::Skip { option, left };
                        return Ok(None);
                    }
                    self.state = State::Header;
                    let event = self.option(option, None, out)?;
                    if event.is_some() {
                        return Ok(event);
                    }
                }
                State::Due(_) | State::Ended => return Ok(None),
            }
        }
    }

    /// Moves bytes to `partial` until it has `length`; false if they ran out.
    fn fill(&mut self, rest: &mut &[u8], length: usize) -> bool {
        let (now, later) = rest.split_at(rest.len().min(length - self.partial.len()));
        self.partial.extend_from_slice(now);
        *rest = later;
        self.partial.len() == length
    }

    fn handshake_flags(&self) -> u16 {
        let mut flags = 0;
        if self.options.fixed_newstyle {
            flags |= proto::FLAG_FIXED_NEWSTYLE;
        }
        if self.options.no_zeroes {
            flags |= proto::FLAG_NO_ZEROES;
        }
        flags
    }

    /// The client's flags have the same bits as those they answer.
    fn client_flags(&mut self, flags: u32) -> Result<(), Violation> {
        told::client_flags(flags);
        if flags & !u32::from(self.handshake_flags()) != 0 {
            return Err(Violation::ClientFlags(flags));
        }
        self.fixed = flags & proto::FLAG_C_FIXED_NEWSTYLE != 0;
        self.no_zeroes = flags & proto::FLAG_C_NO_ZEROES != 0;
        Ok(())
    }

    fn header(&mut self) -> Result<State, Violation> {
        let mut reader = Reader(&self.partial);
        let magic = reader.u64().expect("filled");
        let option = reader.u32().expect("filled");
        let length = reader.u32().expect("filled");
        if magic != proto::OPT_MAGIC {
            return Err(Violation::OptionMagic(magic));
        }
        self.seen += 1;
        if self.seen > limits::MAX_OPTIONS {
            return Err(Violation::TooManyOptions);
        }
        if option == proto::OPT_EXPORT_NAME && length as usize > limits::MAX_STRING {
            return Err(Violation::BadExportName);
        }
        if option != proto::OPT_EXPORT_NAME && !self.fixed {
            return Err(Violation::NotFixed(option));
        }
        if length > limits::MAX_OPTION_SKIP {
            return Err(Violation::OptionTooLong { option, length });
        }
        Ok(if length > limits::MAX_OPTION_DATA {
            State::Skip {
                option,
                left: length,
            }
        } else {
            State::Data {
                option,
                length: length as usize,
            }
        })
    }

    /// Handles one whole option. `data` is `None` if it was too long to keep.
    fn option(
        &mut self,
        option: u32,
        data: Option<&[u8]>,
        out: &mut Vec<u8>,
    ) -> Result<Option<Event>, Violation> {
        if option == proto::OPT_SET_META_CONTEXT {
            // Whatever becomes of this one, it voids the last (spec: same option).
            self.selected = None;
        }
        if option == proto::OPT_EXPORT_NAME {
            return self.export_name(data).map(Some);
        }
        if option == proto::OPT_ABORT {
            reply(out, option, proto::REP_ACK, &[]);
            self.state = State::Ended;
            told::event(&Event::Abort);
            return Ok(Some(Event::Abort));
        }
        match self.judge(option, data) {
            Ok(None) => {
                reply(out, option, proto::REP_ACK, &[]);
                Ok(None)
            }
            Ok(Some((due, event))) => {
                told::event(&event);
                self.state = State::Due(due);
                Ok(Some(event))
            }
            Err(refused) => {
                refuse(out, option, &refused);
                Ok(None)
            }
        }
    }

    fn export_name(&mut self, data: Option<&[u8]>) -> Result<Event, Violation> {
        let request = data
            .and_then(options::export_name)
            .ok_or(Violation::BadExportName)?;
        if self.options.tls == TlsMode::Required && !self.tls {
            return Err(Violation::TlsRequired);
        }
        if self.mode.is_extended() || self.options.require_extended_headers {
            return Err(Violation::ExportNameWithExtendedHeaders);
        }
        if self.shutting_down {
            return Err(Violation::ExportRefused);
        }
        self.state = State::Due(Due::Open(request.clone()));
        let event = Event::Open(request);
        told::event(&event);
        Ok(event)
    }

    /// Judges an option that has replies: acknowledged (`None`), left to the driver, or refused.
    fn judge(&mut self, option: u32, data: Option<&[u8]>) -> Result<Option<(Due, Event)>, Refused> {
        let need_tls = self.options.tls == TlsMode::Required && !self.tls;
        if need_tls && option != proto::OPT_STARTTLS {
            return Err(Refused::new(
                proto::REP_ERR_TLS_REQD,
                "TLS must be started first",
            ));
        }
        if self.shutting_down {
            return Err(Refused::new(
                proto::REP_ERR_SHUTDOWN,
                "the server is shutting down",
            ));
        }
        match option {
            proto::OPT_LIST
            | proto::OPT_STARTTLS
            | proto::OPT_STRUCTURED_REPLY
            | proto::OPT_EXTENDED_HEADERS => {
                if data.is_none_or(|data| !data.is_empty()) {
                    return Err(Refused::new(
                        proto::REP_ERR_INVALID,
                        "this option has no data",
                    ));
                }
                self.judge_bare(option)
            }
            proto::OPT_INFO | proto::OPT_GO => {
                let data = data.ok_or_else(too_big)?;
                let purpose = if option == proto::OPT_GO {
                    Purpose::Go
                } else {
                    Purpose::Info
                };
                let request = options::open(data, purpose)?;
                self.need_extended()?;
                Ok(Some((Due::Open(request.clone()), Event::Open(request))))
            }
            proto::OPT_LIST_META_CONTEXT | proto::OPT_SET_META_CONTEXT => {
                if !self.options.meta_contexts {
                    let text = "metadata contexts are off";
                    return Err(Refused::new(proto::REP_ERR_UNSUP, text));
                }
                let data = data.ok_or_else(too_big)?;
                let list = option == proto::OPT_LIST_META_CONTEXT;
                let request = options::contexts(data, list)?;
                self.need_extended()?;
                if !self.mode.has_chunks() {
                    let text = "metadata contexts need structured replies or extended headers";
                    return Err(Refused::new(proto::REP_ERR_INVALID, text));
                }
                Ok(Some((
                    Due::Contexts(request.clone()),
                    Event::MetaContext(request),
                )))
            }
            _ => Err(Refused::new(proto::REP_ERR_UNSUP, "unknown option")),
        }
    }

    /// Judges an option without data.
    fn judge_bare(&mut self, option: u32) -> Result<Option<(Due, Event)>, Refused> {
        match option {
            proto::OPT_LIST if !self.options.list => Err(Refused::new(
                proto::REP_ERR_POLICY,
                "this server does not list its exports",
            )),
            proto::OPT_LIST => Ok(Some((Due::List, Event::List))),
            proto::OPT_STARTTLS if self.options.tls == TlsMode::Off => Err(Refused::new(
                proto::REP_ERR_POLICY,
                "TLS is not configured on this server",
            )),
            proto::OPT_STARTTLS if self.tls => Err(Refused::new(
                proto::REP_ERR_INVALID,
                "TLS was already started",
            )),
            proto::OPT_STARTTLS => Ok(Some((Due::StartTls, Event::StartTls))),
            proto::OPT_STRUCTURED_REPLY => {
                if !self.options.structured_replies {
                    return Err(Refused::new(
                        proto::REP_ERR_UNSUP,
                        "structured replies are off",
                    ));
                }
                if self.mode.is_extended() {
                    let text = "extended headers are already in force";
                    return Err(Refused::new(proto::REP_ERR_EXT_HEADER_REQD, text));
                }
                self.upgrade(option, Mode::Structured)
            }
            _ => {
                if !self.options.extended_headers {
                    return Err(Refused::new(
                        proto::REP_ERR_UNSUP,
                        "extended headers are off",
                    ));
                }
                self.upgrade(option, Mode::Extended)
            }
        }
    }

    fn upgrade(&mut self, option: u32, mode: Mode) -> Result<Option<(Due, Event)>, Refused> {
        told::upgrade(option);
        if self.mode == mode {
            return Err(Refused::new(
                proto::REP_ERR_INVALID,
                "this was already agreed on",
            ));
        }
        self.mode = mode;
        Ok(None)
    }

    fn need_extended(&self) -> Result<(), Refused> {
        if self.options.require_extended_headers && !self.mode.is_extended() {
            let text = "this server needs extended headers";
            return Err(Refused::new(proto::REP_ERR_EXT_HEADER_REQD, text));
        }
        Ok(())
    }

    /// Applies [`BlockSizePolicy::Refuse`]. The sizes are told before the refusal, to save the
    /// client a round trip (spec: `NBD_REP_ERR_BLOCK_SIZE_REQD`).
    fn accept_block_sizes(
        &self,
        request: &OpenRequest,
        info: ExportInfo,
        out: &mut Vec<u8>,
    ) -> Result<ExportInfo, Refused> {
        match info.block_sizes {
            Some(sizes)
                if sizes.minimum() > 1
                    && !request.wants.block_size
                    && self.options.block_size_policy == BlockSizePolicy::Refuse =>
            {
                if request.purpose != Purpose::ExportName {
                    block_size_info(out, option_of(request.purpose), sizes);
                }
                let text = "this export needs a client that asks for block sizes";
                Err(Refused::new(proto::REP_ERR_BLOCK_SIZE_REQD, text))
            }
            _ => Ok(info),
        }
    }

    /// Contexts count only for the export they were selected for.
    fn contexts_for(&self, name: &str) -> Option<&Vec<Context>> {
        self.selected
            .as_ref()
            .filter(|(export, _)| export == name)
            .map(|(_, contexts)| contexts)
    }

    fn served(&self, request: &OpenRequest, info: &ExportInfo, contexts: usize) -> Served {
        let aligned =
            request.wants.block_size || self.options.block_size_policy != BlockSizePolicy::Relax;
        Served::new(info, self.mode, contexts, aligned)
    }

    fn enter(&mut self, request: OpenRequest, info: &ExportInfo) -> Negotiated {
        self.state = State::Ended;
        let contexts = self
            .contexts_for(&request.name)
            .cloned()
            .unwrap_or_default();
        Negotiated {
            mode: self.mode,
            served: self.served(&request, info, contexts.len()),
            contexts,
            block_sizes_known: request.wants.block_size,
            tls: self.tls,
            name: request.name,
        }
    }
}

fn too_big() -> Refused {
    Refused::new(proto::REP_ERR_TOO_BIG, "the option's data is too long")
}

#[cfg(test)]
#[path = "handshake_tests.rs"]
mod tests;
