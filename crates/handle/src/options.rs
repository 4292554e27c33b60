//! Options of the handshake, one by one (opt mode).

use crate::{
    CompletionCallback, ContextCallback, Handle, ListCallback, Result,
    error::Fault,
    inner::Inner,
    negotiation::Ask,
    state::{Permitted, State},
};

impl Inner {
    /// Ends the connection out of the negotiation.
    pub(crate) fn leave_negotiation(&mut self) -> std::result::Result<(), Fault> {
        self.abort_options();
        if self.flush().is_err() {
            // There is nobody to be told any more.
            self.end(State::Closed);
        }
        Ok(())
    }
}

/// The calls that wait. Those about contexts take the queries of
/// [`add_meta_context`](Handle::add_meta_context), or their own.
impl Handle {
    fn begin_option(
        &self,
        call: &'static str,
        ask: impl FnOnce(&Inner) -> Ask,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        let none = format_args!("");
        self.call(call, Permitted::NEGOTIATING, none, |inner| {
            let ask = ask(inner);
            inner.ask(ask, completion)?;
            inner.flush().inspect_err(|_| inner.fail())
        })
    }

    fn option(&self, call: &'static str, ask: impl FnOnce(&Inner) -> Ask) -> Result<u32> {
        self.begin_option(call, ask, None)?;
        self.wait(call, |inner| {
            let lost = || match inner.state {
                State::Dead | State::Closed => {
                    Some(Err(Fault::plain("recv: server disconnected unexpectedly")))
                }
                _ => None,
            };
            inner.negotiation.result.take().or_else(lost)
        })
    }

    /// `nbd_opt_go`. After a refusal the handle is negotiating again.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_go(&self) -> Result<()> {
        self.option("nbd_opt_go", |_| Ask::Go).map(drop)
    }

    /// `nbd_opt_abort`.
    ///
    /// # Errors
    ///
    /// The connection failed.
    pub fn opt_abort(&self) -> Result<()> {
        let call = "nbd_opt_abort";
        let none = format_args!("");
        self.call(call, Permitted::NEGOTIATING, none, Inner::leave_negotiation)?;
        self.until_over(call)
    }

    /// `nbd_opt_starttls`: whether the server agreed.
    ///
    /// # Errors
    ///
    /// TLS failed, or the server is gone.
    pub fn opt_starttls(&self) -> Result<bool> {
        let agreed = self.option("nbd_opt_starttls", |_| Ask::StartTls)?;
        Ok(agreed != 0)
    }

    /// `nbd_opt_extended_headers`: whether the server agreed.
    ///
    /// # Errors
    ///
    /// The server is gone.
    pub fn opt_extended_headers(&self) -> Result<bool> {
        let agreed = self.option("nbd_opt_extended_headers", |_| Ask::ExtendedHeaders)?;
        Ok(agreed != 0)
    }

    /// `nbd_opt_structured_reply`: whether the server agreed.
    ///
    /// # Errors
    ///
    /// The server is gone.
    pub fn opt_structured_reply(&self) -> Result<bool> {
        let agreed = self.option("nbd_opt_structured_reply", |_| Ask::StructuredReply)?;
        Ok(agreed != 0)
    }

    /// `nbd_opt_list`: how many exports were told.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_list(&self, list: ListCallback) -> Result<u32> {
        self.option("nbd_opt_list", |_| Ask::List(list))
    }

    /// `nbd_opt_info`.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_info(&self) -> Result<()> {
        self.option("nbd_opt_info", |_| Ask::Info).map(drop)
    }

    /// `nbd_opt_list_meta_context`: how many contexts were told.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_list_meta_context(&self, context: ContextCallback) -> Result<u32> {
        self.option("nbd_opt_list_meta_context", |inner| {
            Ask::ListContexts(context, inner.settings().contexts.clone())
        })
    }

    /// `nbd_opt_list_meta_context_queries`.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_list_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
    ) -> Result<u32> {
        self.option("nbd_opt_list_meta_context_queries", |_| {
            Ask::ListContexts(context, queries.to_vec())
        })
    }

    /// `nbd_opt_set_meta_context`: how many contexts were selected.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_set_meta_context(&self, context: ContextCallback) -> Result<u32> {
        self.option("nbd_opt_set_meta_context", |inner| {
            Ask::SetContexts(context, inner.settings().contexts.clone())
        })
    }

    /// `nbd_opt_set_meta_context_queries`.
    ///
    /// # Errors
    ///
    /// The server refused, or is gone.
    pub fn opt_set_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
    ) -> Result<u32> {
        self.option("nbd_opt_set_meta_context_queries", |_| {
            Ask::SetContexts(context, queries.to_vec())
        })
    }
}

/// The calls that only begin. The handle is connecting until the option is over; then the completion callback
/// is called with the error number, and the option is retired whatever it returns. That the server does not agree is
/// told as `ENOTSUP`.
impl Handle {
    /// `nbd_aio_opt_go`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_go(&self, completion: Option<CompletionCallback>) -> Result<()> {
        self.begin_option("nbd_aio_opt_go", |_| Ask::Go, completion)
    }

    /// `nbd_aio_opt_abort`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_abort(&self) -> Result<()> {
        let none = format_args!("");
        let call = "nbd_aio_opt_abort";
        self.call(call, Permitted::NEGOTIATING, none, Inner::leave_negotiation)
    }

    /// `nbd_aio_opt_starttls`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_starttls(&self, completion: Option<CompletionCallback>) -> Result<()> {
        self.begin_option("nbd_aio_opt_starttls", |_| Ask::StartTls, completion)
    }

    /// `nbd_aio_opt_extended_headers`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_extended_headers(&self, completion: Option<CompletionCallback>) -> Result<()> {
        let call = "nbd_aio_opt_extended_headers";
        self.begin_option(call, |_| Ask::ExtendedHeaders, completion)
    }

    /// `nbd_aio_opt_structured_reply`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_structured_reply(&self, completion: Option<CompletionCallback>) -> Result<()> {
        let call = "nbd_aio_opt_structured_reply";
        self.begin_option(call, |_| Ask::StructuredReply, completion)
    }

    /// `nbd_aio_opt_list`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_list(
        &self,
        list: ListCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        self.begin_option("nbd_aio_opt_list", |_| Ask::List(list), completion)
    }

    /// `nbd_aio_opt_info`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_info(&self, completion: Option<CompletionCallback>) -> Result<()> {
        self.begin_option("nbd_aio_opt_info", |_| Ask::Info, completion)
    }

    /// `nbd_aio_opt_list_meta_context`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_list_meta_context(
        &self,
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        let ask = |inner: &Inner| Ask::ListContexts(context, inner.settings().contexts.clone());
        self.begin_option("nbd_aio_opt_list_meta_context", ask, completion)
    }

    /// `nbd_aio_opt_list_meta_context_queries`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_list_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        let ask = |_: &Inner| Ask::ListContexts(context, queries.to_vec());
        self.begin_option("nbd_aio_opt_list_meta_context_queries", ask, completion)
    }

    /// `nbd_aio_opt_set_meta_context`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_set_meta_context(
        &self,
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        let ask = |inner: &Inner| Ask::SetContexts(context, inner.settings().contexts.clone());
        self.begin_option("nbd_aio_opt_set_meta_context", ask, completion)
    }

    /// `nbd_aio_opt_set_meta_context_queries`.
    ///
    /// # Errors
    ///
    /// It cannot be sent.
    pub fn aio_opt_set_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        let ask = |_: &Inner| Ask::SetContexts(context, queries.to_vec());
        self.begin_option("nbd_aio_opt_set_meta_context_queries", ask, completion)
    }
}
