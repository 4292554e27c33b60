//! The handshake: which option is sent when, and what its replies mean for the handle.
//!
//! The order is TLS, extended headers or else structured replies; then the caller's turn in opt mode, or
//! metadata contexts and the export.

use nbd::{
    client::{Told, context_request, info_request},
    names,
    proto::{self, Mode, limits},
    server::Context,
};
use rustix::io::Errno;

use crate::{
    CompletionCallback, TLS_DISABLE, TLS_REQUIRE,
    error::Fault,
    inner::Inner,
    negotiation::{Ask, Asked, no_tls, refusal},
    state::State,
};

impl Inner {
    /// Takes what has come of the handshake.
    pub(crate) fn haggle(&mut self) -> Result<(), Fault> {
        while self.state.is_connecting() && self.state != State::TlsHandshake {
            let Inner {
                wire: Some(wire),
                negotiation,
                shared,
                ..
            } = self
            else {
                break;
            };
            let (consumed, told) = negotiation
                .haggling
                .input(wire.received())
                .map_err(|violation| Fault::plain(format!("handshake: {violation}")))?;
            wire.consume(consumed);
            shared.received(consumed);
            let Some(told) = told else { break };
            self.told(told)?;
        }
        Ok(())
    }

    fn told(&mut self, told: Told) -> Result<(), Fault> {
        match told {
            Told::Newstyle(flags) => {
                self.shared.chunk_received();
                self.greeted(flags)
            }
            Told::Oldstyle { size, flags } => {
                self.shared.chunk_received();
                self.negotiation.protocol = Some(c"oldstyle");
                if self.settings().tls == TLS_REQUIRE {
                    return Err(no_tls("server is oldstyle"));
                }
                self.negotiation.set_export(size, flags)?;
                self.negotiation.contexts_known = true;
                self.enter();
                Ok(())
            }
            Told::Acknowledged => self.acknowledged(),
            Told::Refused { code, text } => self.refused(code, &text),
            Told::Entered { size, flags } => {
                self.negotiation.set_export(size, flags)?;
                self.enter();
                self.end_option(Ok(0))
            }
            Told::Export { name, description } => {
                if let Some(asked) = &mut self.negotiation.asked {
                    asked.count += 1;
                    if let Ask::List(list) = &mut asked.ask {
                        list(&name, &description);
                    }
                }
                Ok(())
            }
            Told::Info(info) => self.negotiation.info(info),
            Told::Context { id, name } => self.context(id, name),
        }
    }

    fn context(&mut self, id: u32, name: String) -> Result<(), Fault> {
        let negotiation = &mut self.negotiation;
        let mut listed = false;
        if let Some(asked) = &mut negotiation.asked {
            asked.count += 1;
            match &mut asked.ask {
                Ask::ListContexts(context, _) => {
                    listed = true;
                    context(&name);
                }
                Ask::SetContexts(context, _) => {
                    context(&name);
                }
                _ => {}
            }
        }
        if listed {
            return Ok(());
        }
        if negotiation.contexts.len() == limits::MAX_CONTEXTS {
            return Err(Fault::plain("handshake: too many metadata contexts"));
        }
        negotiation.contexts.push(Context { id, name });
        Ok(())
    }

    fn greeted(&mut self, flags: u16) -> Result<(), Fault> {
        let settings = self.settings();
        let (wanted, tls, opt_mode) = (settings.handshake_flags, settings.tls, settings.opt_mode);
        drop(settings);
        let flags = wanted & u32::from(flags);
        let mut out = Vec::new();
        self.negotiation.flags = flags;
        self.settings().handshake_flags = flags;
        self.negotiation.haggling.answer(flags, &mut out);
        self.queue_raw(out, false);
        let fixed = self.negotiation.is_fixed();
        self.negotiation.protocol = Some(if fixed {
            c"newstyle-fixed"
        } else {
            c"newstyle"
        });
        if !fixed {
            if tls == TLS_REQUIRE {
                return Err(no_tls("server is not fixed newstyle"));
            }
            if opt_mode {
                self.state = State::Negotiating;
                return Ok(());
            }
            return self.send_export_name();
        }
        if tls == TLS_DISABLE {
            return self.after_tls();
        }
        self.send_option(State::StartTls, proto::OPT_STARTTLS, &[]);
        Ok(())
    }

    fn after_tls(&mut self) -> Result<(), Fault> {
        let settings = self.settings();
        let structured = settings.structured_replies;
        let extended = structured && settings.extended_headers;
        drop(settings);
        if extended {
            self.send_option(State::ExtendedHeaders, proto::OPT_EXTENDED_HEADERS, &[]);
            return Ok(());
        }
        self.after_extended(structured)
    }

    fn after_extended(&mut self, structured: bool) -> Result<(), Fault> {
        if structured && !self.negotiation.mode.has_chunks() {
            self.send_option(State::StructuredReply, proto::OPT_STRUCTURED_REPLY, &[]);
            return Ok(());
        }
        self.after_structured()
    }

    fn after_structured(&mut self) -> Result<(), Fault> {
        if self.settings().opt_mode {
            self.state = State::Negotiating;
            return Ok(());
        }
        self.choose(false)
    }

    /// Chooses the export, or only looks at it; before that, the contexts.
    fn choose(&mut self, info: bool) -> Result<(), Fault> {
        let settings = self.settings();
        let contexts = settings.contexts.clone();
        let export = settings.export.clone();
        let automatic = settings.request_meta_context;
        drop(settings);
        self.negotiation.forget_export();
        if automatic {
            self.negotiation.forget_contexts();
            if self.negotiation.mode.has_chunks() && !contexts.is_empty() {
                let data = context_request(&export, &contexts);
                self.send_option(State::MetaContext, proto::OPT_SET_META_CONTEXT, &data);
                return Ok(());
            }
            self.negotiation.contexts_known = true;
        }
        self.send_go(info);
        Ok(())
    }

    fn send_go(&mut self, info: bool) {
        let settings = self.settings();
        let mut wanted = Vec::new();
        if settings.full_info {
            wanted.extend([proto::INFO_NAME, proto::INFO_DESCRIPTION]);
        }
        if settings.block_size {
            wanted.push(proto::INFO_BLOCK_SIZE);
        }
        let data = info_request(&settings.export, &wanted);
        drop(settings);
        match info {
            true => self.send_option(State::Info, proto::OPT_INFO, &data),
            false => self.send_option(State::Go, proto::OPT_GO, &data),
        }
    }

    fn send_export_name(&mut self) -> Result<(), Fault> {
        let export = self.settings().export.clone();
        self.negotiation.forget_export();
        self.negotiation.contexts_known = true;
        self.send_option(State::ExportName, proto::OPT_EXPORT_NAME, export.as_bytes());
        Ok(())
    }

    fn send_option(&mut self, state: State, option: u32, data: &[u8]) {
        let mut out = Vec::new();
        self.negotiation.haggling.send(option, data, &mut out);
        self.state = state;
        self.queue_raw(out, true);
    }

    fn acknowledged(&mut self) -> Result<(), Fault> {
        match self.state {
            State::StartTls => {
                if self.wire()?.is_secure() {
                    let text = "handshake: the server agreed to TLS over TLS";
                    return Err(Fault::of(text, Errno::PROTO));
                }
                self.start_tls()
            }
            State::ExtendedHeaders => {
                self.debug(format_args!(
                    "negotiated extended headers on this connection"
                ));
                self.negotiation.mode = Mode::Extended;
                self.option_done(Ok(1), Inner::after_structured)
            }
            State::StructuredReply => {
                self.debug(format_args!(
                    "negotiated structured replies on this connection"
                ));
                if !self.negotiation.mode.has_chunks() {
                    self.negotiation.mode = Mode::Structured;
                }
                self.option_done(Ok(1), Inner::after_structured)
            }
            State::MetaContext => self.contexts_told(),
            State::Go => {
                self.has_export()?;
                self.enter();
                self.end_option(Ok(0))
            }
            State::Info => {
                self.has_export()?;
                self.end_option(Ok(0))
            }
            _ => {
                let count = self
                    .negotiation
                    .asked
                    .as_ref()
                    .map_or(0, |asked| asked.count);
                self.end_option(Ok(count))
            }
        }
    }

    fn has_export(&self) -> Result<(), Fault> {
        match self.negotiation.export {
            Some(_) => Ok(()),
            None => Err(Fault::of(
                "handshake: the server did not describe the export",
                Errno::PROTO,
            )),
        }
    }

    fn contexts_told(&mut self) -> Result<(), Fault> {
        let asked = self.negotiation.asked.as_ref();
        match asked.map(|asked| (&asked.ask, asked.count)) {
            Some((Ask::ListContexts(..), count)) => self.end_option(Ok(count)),
            Some((Ask::SetContexts(..), count)) => {
                self.negotiation.contexts_known = true;
                self.end_option(Ok(count))
            }
            asked => {
                let info = matches!(asked, Some((Ask::Info, _)));
                self.negotiation.contexts_known = true;
                self.send_go(info);
                Ok(())
            }
        }
    }

    fn refused(&mut self, code: u32, text: &str) -> Result<(), Fault> {
        let name = names::option_reply(code);
        self.debug(format_args!("the server replied {name} {text:?}"));
        match self.state {
            State::StartTls if self.negotiation.asked.is_some() => self.end_option(Ok(0)),
            State::StartTls if self.settings().tls == TLS_REQUIRE => {
                Err(no_tls("server refused TLS"))
            }
            State::StartTls => self.after_tls(),
            State::ExtendedHeaders => self.option_done(Ok(0), |inner| inner.after_extended(true)),
            State::StructuredReply => self.option_done(Ok(0), Inner::after_structured),
            State::MetaContext => {
                let asked = self.negotiation.asked.as_ref().map(|asked| &asked.ask);
                let by_caller = matches!(asked, Some(Ask::ListContexts(..) | Ask::SetContexts(..)));
                let info = matches!(asked, Some(Ask::Info));
                if by_caller {
                    let text = "server replied with error to meta context request";
                    return self.end_option(Err(Fault::of(text, Errno::NOTSUP)));
                }
                self.negotiation.forget_contexts();
                self.send_go(info);
                Ok(())
            }
            State::List => {
                let text = "server replied with error to list request";
                self.end_option(Err(Fault::of(text, Errno::NOTSUP)))
            }
            // Old servers know only the other way in.
            State::Go if code == proto::REP_ERR_UNSUP && !self.negotiation.mode.is_extended() => {
                self.send_export_name()
            }
            _ => {
                self.negotiation.forget_export();
                self.negotiation.forget_contexts();
                let fault = refusal(code, text, &self.settings().export);
                self.end_option(Err(fault))
            }
        }
    }

    /// Ends an option of the caller's, or goes on with our own plan.
    fn option_done(
        &mut self,
        result: Result<u32, Fault>,
        next: impl FnOnce(&mut Inner) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        match self.negotiation.asked {
            Some(_) => self.end_option(result),
            None => next(self),
        }
    }

    /// The option of the caller's is over; or of our own, which is fatal if it failed.
    fn end_option(&mut self, result: Result<u32, Fault>) -> Result<(), Fault> {
        let Some(asked) = self.negotiation.asked.take() else {
            return result.map(|_| ());
        };
        if self.state.is_connecting() {
            self.state = State::Negotiating;
        }
        self.conclude(asked, result);
        Ok(())
    }

    fn conclude(&mut self, mut asked: Asked, result: Result<u32, Fault>) {
        let mut error = match &result {
            // Whether the server agreed is told as an error here.
            Ok(0)
                if matches!(
                    asked.ask,
                    Ask::StartTls | Ask::ExtendedHeaders | Ask::StructuredReply
                ) =>
            {
                Errno::NOTSUP.raw_os_error()
            }
            Ok(_) => 0,
            Err(Fault { errno: 0, .. }) => Errno::NOTSUP.raw_os_error(),
            Err(fault) => fault.errno,
        };
        if let Some(completion) = &mut asked.completion {
            completion(&mut error);
        }
        drop(asked.ask);
        drop(asked.completion);
        self.negotiation.result = Some(result);
    }

    /// The connection is lost with an option of the caller's under way.
    pub(crate) fn abandon_option(&mut self) {
        if let Some(asked) = self.negotiation.asked.take() {
            self.conclude(asked, Err(Fault::of("connection lost", Errno::NOTCONN)));
        }
    }

    /// Begins an option of the caller's.
    pub(crate) fn ask(
        &mut self,
        ask: Ask,
        completion: Option<CompletionCallback>,
    ) -> Result<(), Fault> {
        if !self.negotiation.is_fixed() && !matches!(ask, Ask::Go) {
            let text = "server is not using fixed newstyle protocol";
            return Err(Fault::of(text, Errno::NOTSUP));
        }
        if matches!(ask, Ask::StartTls) && !tls::BUILT {
            let text = "this program was built without TLS";
            return Err(Fault::of(text, Errno::NOTSUP));
        }
        let request = match &ask {
            Ask::Go | Ask::Info => None,
            Ask::StartTls => Some((State::StartTls, proto::OPT_STARTTLS, Vec::new())),
            Ask::ExtendedHeaders => {
                let option = proto::OPT_EXTENDED_HEADERS;
                Some((State::ExtendedHeaders, option, Vec::new()))
            }
            Ask::StructuredReply => {
                let option = proto::OPT_STRUCTURED_REPLY;
                Some((State::StructuredReply, option, Vec::new()))
            }
            Ask::List(_) => Some((State::List, proto::OPT_LIST, Vec::new())),
            Ask::ListContexts(_, queries) => {
                let data = context_request(&self.settings().export, queries);
                Some((State::MetaContext, proto::OPT_LIST_META_CONTEXT, data))
            }
            Ask::SetContexts(_, queries) => {
                let data = context_request(&self.settings().export, queries);
                self.negotiation.forget_contexts();
                Some((State::MetaContext, proto::OPT_SET_META_CONTEXT, data))
            }
        };
        let info = matches!(ask, Ask::Info);
        self.negotiation.result = None;
        self.negotiation.asked = Some(Asked {
            ask,
            completion,
            count: 0,
        });
        match request {
            Some((state, option, data)) => {
                self.send_option(state, option, &data);
                Ok(())
            }
            None if !self.negotiation.is_fixed() => self.send_export_name(),
            None => self.choose(info),
        }
    }

    /// Leaves the negotiation: the server is told, and the connection closed once it is.
    pub(crate) fn abort_options(&mut self) {
        if self.negotiation.is_fixed() {
            self.send_option(State::OptAbort, proto::OPT_ABORT, &[]);
        }
        self.negotiation.haggling.end();
        self.state = State::OptAbort;
    }

    /// TLS runs.
    pub(crate) fn tls_started(&mut self) -> Result<(), Fault> {
        self.debug(format_args!("connection is using TLS"));
        self.negotiation.tls = true;
        // What was agreed on in the clear counts no more (spec: NBD_OPT_STARTTLS).
        self.negotiation.mode = Mode::Simple;
        self.negotiation.forget_contexts();
        self.negotiation.forget_export();
        self.option_done(Ok(1), Inner::after_tls)
    }
}
