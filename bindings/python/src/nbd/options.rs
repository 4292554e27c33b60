//! Methods: the handshake in steps (`set_opt_mode`).

use pyo3::prelude::*;

use super::Connection;
use crate::{callback::Callable, convert::Names};

#[pymethods]
impl Connection {
    /// End the handshake with the chosen export.
    fn opt_go(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.opt_go())
    }

    /// End the handshake and the connection.
    fn opt_abort(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.opt_abort())
    }

    /// Ask for TLS; False if the server has none.
    fn opt_starttls(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.opt_starttls())
    }

    /// Ask for extended headers; False if the server has none.
    fn opt_extended_headers(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.opt_extended_headers())
    }

    /// Ask for structured replies; False if the server has none.
    fn opt_structured_reply(&self, py: Python<'_>) -> PyResult<bool> {
        self.call(py, move |h| h.opt_structured_reply())
    }

    /// List the exports: list(name, description) is called for each. Returns their number.
    fn opt_list(&self, py: Python<'_>, list: Callable) -> PyResult<u32> {
        let list = list.list();
        self.call(py, move |h| h.opt_list(list))
    }

    /// Ask for the properties of the chosen export, without ending the handshake.
    fn opt_info(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.opt_info())
    }

    /// Ask which of the wished metadata contexts there are: context(name) is called for each.
    fn opt_list_meta_context(&self, py: Python<'_>, context: Callable) -> PyResult<u32> {
        let context = context.context();
        self.call(py, move |h| h.opt_list_meta_context(context))
    }

    /// As opt_list_meta_context(), with these names.
    fn opt_list_meta_context_queries(
        &self,
        py: Python<'_>,
        queries: Names,
        context: Callable,
    ) -> PyResult<u32> {
        let context = context.context();
        self.call(py, move |h| {
            h.opt_list_meta_context_queries(&queries.0, context)
        })
    }

    /// Choose the wished metadata contexts: context(name) is called for each that there is.
    fn opt_set_meta_context(&self, py: Python<'_>, context: Callable) -> PyResult<u32> {
        let context = context.context();
        self.call(py, move |h| h.opt_set_meta_context(context))
    }

    /// As opt_set_meta_context(), with these names.
    fn opt_set_meta_context_queries(
        &self,
        py: Python<'_>,
        queries: Names,
        context: Callable,
    ) -> PyResult<u32> {
        let context = context.context();
        self.call(py, move |h| {
            h.opt_set_meta_context_queries(&queries.0, context)
        })
    }

    /// As opt_go(), without waiting.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_go(&self, py: Python<'_>, completion: Option<Callable>) -> PyResult<()> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_go(completion))
    }

    /// As opt_abort(), without waiting.
    fn aio_opt_abort(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, move |h| h.aio_opt_abort())
    }

    /// As opt_starttls(), without waiting.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_starttls(&self, py: Python<'_>, completion: Option<Callable>) -> PyResult<()> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_starttls(completion))
    }

    /// As opt_extended_headers(), without waiting.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_extended_headers(
        &self,
        py: Python<'_>,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_extended_headers(completion))
    }

    /// As opt_structured_reply(), without waiting.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_structured_reply(
        &self,
        py: Python<'_>,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_structured_reply(completion))
    }

    /// As opt_list(), without waiting.
    #[pyo3(signature = (list, completion=None))]
    fn aio_opt_list(
        &self,
        py: Python<'_>,
        list: Callable,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let list = list.list();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_list(list, completion))
    }

    /// As opt_info(), without waiting.
    #[pyo3(signature = (completion=None))]
    fn aio_opt_info(&self, py: Python<'_>, completion: Option<Callable>) -> PyResult<()> {
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_info(completion))
    }

    /// As opt_list_meta_context(), without waiting.
    #[pyo3(signature = (context, completion=None))]
    fn aio_opt_list_meta_context(
        &self,
        py: Python<'_>,
        context: Callable,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let context = context.context();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_opt_list_meta_context(context, completion)
        })
    }

    /// As opt_list_meta_context_queries(), without waiting.
    #[pyo3(signature = (queries, context, completion=None))]
    fn aio_opt_list_meta_context_queries(
        &self,
        py: Python<'_>,
        queries: Names,
        context: Callable,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let context = context.context();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_opt_list_meta_context_queries(&queries.0, context, completion)
        })
    }

    /// As opt_set_meta_context(), without waiting.
    #[pyo3(signature = (context, completion=None))]
    fn aio_opt_set_meta_context(
        &self,
        py: Python<'_>,
        context: Callable,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let context = context.context();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| h.aio_opt_set_meta_context(context, completion))
    }

    /// As opt_set_meta_context_queries(), without waiting.
    #[pyo3(signature = (queries, context, completion=None))]
    fn aio_opt_set_meta_context_queries(
        &self,
        py: Python<'_>,
        queries: Names,
        context: Callable,
        completion: Option<Callable>,
    ) -> PyResult<()> {
        let context = context.context();
        let completion = completion.map(Callable::completion);
        self.call(py, move |h| {
            h.aio_opt_set_meta_context_queries(&queries.0, context, completion)
        })
    }
}
