//! Sorts arguments to the parameters of a schema; what derived code is built on.

use crate::{Arg, ConfigError, ErrorKind, Field, Schema, Value, arg};

/// The arguments of one node, sorted by parameter.
#[derive(Debug)]
pub struct Values<'a> {
    schema: &'static Schema,
    /// For each parameter of the schema, its texts in the order given.
    given: Vec<Vec<&'a str>>,
    rest: Vec<(String, String)>,
}

impl<'a> Values<'a> {
    /// Sorts `args` by the parameters of `schema`.
    ///
    /// # Errors
    /// An unknown key, a key given twice whose parameter does not repeat, or a bare value without
    /// a magic parameter.
    pub fn sort(schema: &'static Schema, args: &'a [Arg]) -> Result<Self, ConfigError> {
        let refuse = |kind| Err(ConfigError::new(schema.name, kind));
        let mut given = vec![Vec::new(); schema.params.len()];
        let mut keyed = vec![false; schema.params.len()];
        let mut rest = Vec::new();
        for word in args {
            match word {
                Arg::KeyValue(key, value) => match schema.position(key) {
                    Some(place) => {
                        let param = &schema.params[place];
                        if std::mem::replace(&mut keyed[place], true) && !param.repeated {
                            return refuse(ErrorKind::Duplicate { key: param.name });
                        }
                        given[place].push(value.as_str());
                    }
                    None if schema.rest.is_some() => rest.push((key.clone(), value.clone())),
                    None => return refuse(arg::unknown(key, &[schema])),
                },
                Arg::Bare(value) => match schema.params.iter().position(|param| param.magic) {
                    Some(place) => given[place].push(value.as_str()),
                    None => {
                        return refuse(ErrorKind::NoMagic {
                            value: value.clone(),
                        });
                    }
                },
            }
        }
        Ok(Self {
            schema,
            given,
            rest,
        })
    }

    /// The field for the parameter at `place` in the schema: the last value given (all, if it
    /// repeats), else the default. Every value is checked, also one that a later one replaces.
    ///
    /// # Errors
    /// A bad value, or none where one is required.
    ///
    /// # Panics
    /// If the schema has no parameter at `place`.
    pub fn field<T: Field>(&self, place: usize) -> Result<T, ConfigError> {
        let param = &self.schema.params[place];
        let given = &self.given[place];
        if given.is_empty() && param.default.is_none() && param.required {
            return Err(ConfigError::missing(self.schema, param));
        }
        let default = if given.is_empty() {
            param.default
        } else {
            None
        };
        let values = given.iter().copied().chain(default).map(|text| {
            T::Item::parse(text).map_err(|why| ConfigError::bad(self.schema, param, text, why))
        });
        let values = values.collect::<Result<Vec<_>, _>>()?;
        T::collect(values).ok_or_else(|| ConfigError::missing(self.schema, param))
    }

    /// The pairs no parameter knows, in the order given.
    pub fn rest(&mut self) -> Vec<(String, String)> {
        std::mem::take(&mut self.rest)
    }

    /// Passes on the verdict of a check of the finished struct.
    ///
    /// # Errors
    /// `Conflict`, if the verdict is a reason.
    pub fn checked(&self, verdict: Result<(), String>) -> Result<(), ConfigError> {
        verdict.map_err(|why| ConfigError::new(self.schema.name, ErrorKind::Conflict { why }))
    }
}
