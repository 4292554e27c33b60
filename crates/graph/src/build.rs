//! From a description of the graph to the graph: nodes are made, nothing is opened.

use std::sync::Arc;

use block::{Next, Result, Source, ThreadModel};

use crate::{node::Node, registry::Registry, spec::GraphSpec};

/// A graph that is ready to be made ready.
pub struct Built {
    /// The outermost node: what exports serve.
    pub source: Arc<dyn Source>,
    /// The strictest thread model of the chain. Requests are gated already; an export only sees
    /// to `SerializeConnections`.
    pub thread_model: ThreadModel,
}

impl Registry {
    /// Makes the nodes of `spec`. Opens nothing: that begins with [`Source::ready`].
    ///
    /// # Errors
    /// `Config`: an unknown kind of node, or arguments it does not accept.
    pub fn build(&self, spec: &GraphSpec) -> Result<Built> {
        self.build_around(spec, &|_, node| node)
    }

    /// As [`Registry::build`]; `around` is called with each node's name and the node, the source
    /// first, and gives what stands in its place: the node with something around it.
    ///
    /// # Errors
    /// As [`Registry::build`].
    pub fn build_around(
        &self,
        spec: &GraphSpec,
        around: &dyn Fn(&'static str, Arc<dyn Source>) -> Arc<dyn Source>,
    ) -> Result<Built> {
        let entry = self.source(&spec.source.name)?;
        let named = |error: block::Error, name: &str| error.in_node(&name.into());
        let made = (entry.make)(&spec.source.args).map_err(|e| named(e, entry.name))?;
        let mut top = around(
            entry.name,
            Node::wrap(made, entry.name, ThreadModel::Parallel),
        );
        for node in spec.filters.iter().rev() {
            let entry = self.filter(&node.name)?;
            let below = top.thread_model();
            let made =
                (entry.make)(&node.args, Next::new(top)).map_err(|e| named(e, entry.name))?;
            top = around(entry.name, Node::wrap(made, entry.name, below));
        }
        let thread_model = top.thread_model();
        Ok(Built {
            source: top,
            thread_model,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::registry;

    fn build(filters: &[&str], words: &[&str]) -> Result<Built> {
        let own = |words: &[&str]| words.iter().map(|&word| word.into()).collect::<Vec<_>>();
        let registry = registry();
        registry.build(&registry.resolve("memory", &own(filters), &own(words))?)
    }

    #[test]
    fn the_outermost_filter_is_on_top() {
        let built = build(&["shift", "slow"], &["1M"]).expect("builds");
        assert_eq!(&**built.source.name(), "shift");
        let error = built.source.ready().expect_err("a fake");
        assert_eq!(error.chain(), "shift: a fake is never ready");
    }

    #[test]
    fn the_strictest_thread_model_wins() {
        let model =
            |filters: &[&str], words: &[&str]| build(filters, words).expect("builds").thread_model;
        assert_eq!(model(&[], &["1M"]), ThreadModel::Parallel);
        assert_eq!(
            model(&["slow", "shift"], &["1M"]),
            ThreadModel::SerializeRequests
        );
        assert_eq!(
            model(&["slow"], &["1M", "model=connections"]),
            ThreadModel::SerializeConnections
        );
        assert_eq!(
            model(&["slow"], &["1M", "model=all"]),
            ThreadModel::SerializeAllRequests
        );
    }

    #[test]
    fn bad_values_are_refused_while_parsing() {
        let error = build(&[], &["x"]).err().expect("not a size");
        assert!(error.chain().starts_with("memory: size=x: "), "{error:?}");
        assert!(error.hint_text().is_some());
        let error = build(&[], &[]).err().expect("no size");
        assert!(
            error.chain().contains("size=<SIZE> is required"),
            "{error:?}"
        );
    }
}
