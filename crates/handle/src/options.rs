//! Options of the handshake, one by one (opt mode).

use crate::{CompletionCallback, ContextCallback, Handle, ListCallback, Result, pending};

impl Handle {
    /// `nbd_opt_go`.
    pub fn opt_go(&self) -> Result<()> {
        pending()
    }
    /// `nbd_opt_abort`.
    pub fn opt_abort(&self) -> Result<()> {
        pending()
    }
    /// `nbd_opt_starttls`: whether the server agreed.
    pub fn opt_starttls(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_opt_extended_headers`: whether the server agreed.
    pub fn opt_extended_headers(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_opt_structured_reply`: whether the server agreed.
    pub fn opt_structured_reply(&self) -> Result<bool> {
        pending()
    }
    /// `nbd_opt_list`: how many exports were told.
    pub fn opt_list(&self, list: ListCallback) -> Result<u32> {
        pending()
    }
    /// `nbd_opt_info`.
    pub fn opt_info(&self) -> Result<()> {
        pending()
    }
    /// `nbd_opt_list_meta_context`: how many contexts were told.
    pub fn opt_list_meta_context(&self, context: ContextCallback) -> Result<u32> {
        pending()
    }
    /// `nbd_opt_list_meta_context_queries`.
    pub fn opt_list_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
    ) -> Result<u32> {
        pending()
    }
    /// `nbd_opt_set_meta_context`.
    pub fn opt_set_meta_context(&self, context: ContextCallback) -> Result<u32> {
        pending()
    }
    /// `nbd_opt_set_meta_context_queries`.
    pub fn opt_set_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
    ) -> Result<u32> {
        pending()
    }
    /// `nbd_aio_opt_go`.
    pub fn aio_opt_go(&self, completion: Option<CompletionCallback>) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_abort`.
    pub fn aio_opt_abort(&self) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_starttls`.
    pub fn aio_opt_starttls(&self, completion: Option<CompletionCallback>) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_extended_headers`.
    pub fn aio_opt_extended_headers(&self, completion: Option<CompletionCallback>) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_structured_reply`.
    pub fn aio_opt_structured_reply(&self, completion: Option<CompletionCallback>) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_list`.
    pub fn aio_opt_list(
        &self,
        list: ListCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_info`.
    pub fn aio_opt_info(&self, completion: Option<CompletionCallback>) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_list_meta_context`.
    pub fn aio_opt_list_meta_context(
        &self,
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_list_meta_context_queries`.
    pub fn aio_opt_list_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_set_meta_context`.
    pub fn aio_opt_set_meta_context(
        &self,
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        pending()
    }
    /// `nbd_aio_opt_set_meta_context_queries`.
    pub fn aio_opt_set_meta_context_queries(
        &self,
        queries: &[String],
        context: ContextCallback,
        completion: Option<CompletionCallback>,
    ) -> Result<()> {
        pending()
    }
}
