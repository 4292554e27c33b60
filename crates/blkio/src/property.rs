//! Properties: named values that say how to reach a disk, and what it is.

use rustix::io::Errno;

use crate::{Error, error::invalid};

/// How far a [`Blkio`](crate::Blkio) has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// It only has properties that say how to connect.
    Created,
    /// The disk is there; its properties can be asked.
    Connected,
    /// It does I/O.
    Started,
}

/// The type of a property.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `true` or `false`.
    Bool,
    /// A signed 32-bit integer.
    Int,
    /// An unsigned 64-bit integer.
    U64,
    /// Text.
    Str,
}

impl Kind {
    /// The error of getting a property of another kind as this.
    pub(crate) fn mismatch(self) -> Error {
        let text = match self {
            Kind::Bool => "Property is not a bool",
            Kind::Int => "Property is not an int",
            Kind::U64 => "Property is not an unsigned 64-bit integer",
            Kind::Str => "Property is not a string",
        };
        Error::new(Errno::NOTTY, text)
    }

    /// A value of this kind from text.
    pub(crate) fn parse(self, text: &str) -> Result<Value, Error> {
        match self {
            Kind::Bool => match text {
                "true" => Ok(Value::Bool(true)),
                "false" => Ok(Value::Bool(false)),
                _ => Err(invalid("Value must be \"true\" or \"false\"")),
            },
            Kind::Int => {
                let int = text.parse().map(Value::Int);
                int.map_err(|_| invalid("Value must be a signed 32-bit integer"))
            }
            Kind::U64 => {
                let int = text.parse().map(Value::U64);
                int.map_err(|_| invalid("Value must be an unsigned 64-bit integer"))
            }
            Kind::Str => Ok(Value::Str(text.into())),
        }
    }
}

/// The value of a property.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// `true` or `false`.
    Bool(bool),
    /// A signed 32-bit integer.
    Int(i32),
    /// An unsigned 64-bit integer.
    U64(u64),
    /// Text.
    Str(String),
}

impl Value {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Value::Bool(_) => Kind::Bool,
            Value::Int(_) => Kind::Int,
            Value::U64(_) => Kind::U64,
            Value::Str(_) => Kind::Str,
        }
    }
}

impl std::fmt::Display for Value {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Value::Bool(value) => value.fmt(f),
            Value::Int(value) => value.fmt(f),
            Value::U64(value) => value.fmt(f),
            Value::Str(value) => f.write_str(value),
        }
    }
}

/// A property of a driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Property {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// The first state in which it can be read.
    pub readable: State,
    /// The only state in which it can be written, if it can.
    pub writable: Option<State>,
}

impl Property {
    /// A property that the device has: nothing to set.
    pub(crate) const fn read(name: &'static str, kind: Kind, from: State) -> Property {
        Property {
            name,
            kind,
            readable: from,
            writable: None,
        }
    }

    /// A property that can be written in one state, and read in all.
    pub(crate) const fn write(name: &'static str, kind: Kind, during: State) -> Property {
        Property {
            name,
            kind,
            readable: State::Created,
            writable: Some(during),
        }
    }

    pub(crate) fn check_readable(&self, state: State) -> Result<(), Error> {
        match self.readable {
            from if state >= from => Ok(()),
            State::Started => Err(must_be_started()),
            _ => Err(must_be_connected()),
        }
    }

    pub(crate) fn check_writable(&self, state: State) -> Result<(), Error> {
        let Some(during) = self.writable else {
            return Err(Error::new(Errno::ACCESS, "Property is read-only"));
        };
        match state {
            now if now == during => Ok(()),
            now if now < during => Err(must_be_connected()),
            // libblkio does not tell these two apart.
            _ if during == State::Created => Err(connected_already()),
            State::Started => Err(Error::new(
                Errno::BUSY,
                "Cannot set property in started state",
            )),
            _ => Err(connected_already()),
        }
    }
}

pub(crate) fn must_be_connected() -> Error {
    Error::new(Errno::NODEV, "Device must be connected")
}

pub(crate) fn must_be_started() -> Error {
    Error::new(Errno::BUSY, "Device must be started")
}

/// libblkio says this of connecting what is started, too.
pub(crate) fn connected_already() -> Error {
    Error::new(Errno::BUSY, "Cannot set property in connected state")
}
