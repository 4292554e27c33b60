//! From text to tree: one pass, no tokens in between, because every expression says with its first
//! byte what it is.
//!
//! *Contract.* Any text gives a tree or one mistake with its place. The work is bounded: depth, and the
//! length of all texts together, where a variable counts each time it is used.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use config::grammar;

use super::{
    ast::{At, Fault, MAX_DEPTH, Move, Node, Shared, What, too_deep},
    optimise,
};
use crate::base64;

/// What `$NAME` means.
pub(super) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// One of the texts a program is made of.
#[derive(Debug)]
pub(super) struct Text {
    /// The variable it comes from; `None`: the program itself.
    pub variable: Option<String>,
    pub text: Arc<str>,
}

/// Parses a program. The texts come back also if it has a mistake, to say where it is.
///
/// `most`: bytes of all texts together.
pub(super) fn parse(
    program: &str,
    variables: Variables<'_>,
    most: usize,
) -> (Vec<Text>, Result<Node, Fault>) {
    let mut parser = Parser {
        variables,
        texts: Vec::new(),
        scopes: Vec::new(),
        left: most,
    };
    let root = parser.text(None, program.into(), 0, At { text: 0, offset: 0 });
    (parser.texts, root)
}

struct Parser<'a> {
    variables: Variables<'a>,
    texts: Vec<Text>,
    /// Names, innermost scope last.
    scopes: Vec<HashMap<String, Arc<Shared>>>,
    /// Bytes of text that may still come.
    left: usize,
}

/// The items of a group so far.
#[derive(Default)]
struct Items {
    list: Vec<Node>,
    /// The last one can be repeated, sliced, named.
    open: bool,
}

impl Items {
    fn push(&mut self, node: Node) -> Result<(), Fault> {
        // The one before cannot change any more.
        if let Some(last) = self.list.pop() {
            optimise::join(&mut self.list, last)?;
        }
        self.open = !node.is_move();
        self.list.push(node);
        Ok(())
    }

    /// The expression that an operator behind it works on.
    fn operand(&mut self, at: At, operator: &str) -> Result<Node, Fault> {
        match self.list.last() {
            Some(last) if last.is_move() && !self.open => Err(Fault::new(
                at,
                format!("{operator} cannot be applied to an offset"),
            )),
            Some(_) if self.open => {
                self.open = false;
                Ok(self.list.pop().expect("there is a last one"))
            }
            _ => Err(Fault::new(
                at,
                format!("{operator} must follow an expression"),
            )),
        }
    }
}

impl Parser<'_> {
    /// A whole text, as a group.
    fn text(
        &mut self,
        variable: Option<&str>,
        text: Arc<str>,
        depth: u16,
        used: At,
    ) -> Result<Node, Fault> {
        // One more, so that empty variables count.
        let fits = self.left.checked_sub(text.len() + 1);
        let name = variable.map(str::to_owned);
        let at = At {
            text: self.texts.len() as u32,
            offset: 0,
        };
        let too_long = "the data, with its variables, is too long";
        match fits {
            Some(left) => self.left = left,
            None if self.texts.is_empty() => {
                self.texts.push(Text {
                    variable: name,
                    text: "".into(),
                });
                return Err(Fault::new(at, too_long));
            }
            None => return Err(Fault::new(used, too_long)),
        }
        self.texts.push(Text {
            variable: name,
            text: text.clone(),
        });
        let mut reader = Reader {
            text: &text,
            at: 0,
            number: at.text,
        };
        self.group(&mut reader, None, at, depth)
    }

    /// Items up to the `)` that closes `open`, or the end of the text.
    fn group(
        &mut self,
        reader: &mut Reader<'_>,
        open: Option<At>,
        at: At,
        depth: u16,
    ) -> Result<Node, Fault> {
        if depth >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.scopes.push(HashMap::new());
        let mut items = Items::default();
        loop {
            reader.skip_space();
            let at = reader.place();
            match (reader.peek(), open) {
                (None, None) => break,
                (None, Some(open)) => return Err(Fault::new(open, "this '(' is never closed")),
                (Some(b')'), None) => return Err(Fault::new(at, "unmatched ')'")),
                (Some(b')'), Some(_)) => {
                    reader.at += 1;
                    break;
                }
                (Some(first), _) => self.item(reader, first, at, depth, &mut items)?,
            }
        }
        self.scopes.pop();
        optimise::group(at, items.list)
    }

    /// One item, or an operator on the one before.
    fn item(
        &mut self,
        reader: &mut Reader<'_>,
        first: u8,
        at: At,
        depth: u16,
        items: &mut Items,
    ) -> Result<(), Fault> {
        let node = match first {
            b'0'..=b'9' => optimise::bytes(at, vec![reader.integer("byte", 0xff)? as u8])?,
            b'a'..=b'z' | b'A'..=b'Z' => word(reader, at)?,
            b'"' => optimise::bytes(at, string(reader, at)?)?,
            b'@' => optimise::offset(at, offset(reader)?)?,
            b'<' => optimise::external(at, outside(reader, at)?)?,
            b'(' => {
                reader.at += 1;
                self.group(reader, Some(at), at, depth + 1)?
            }
            b'\\' => {
                let name = reader.name(at)?;
                let mut scopes = self.scopes.iter().rev();
                match scopes.find_map(|scope| scope.get(name)) {
                    Some(shared) => optimise::name(at, shared)?,
                    None => return Err(Fault::new(at, format!("\\{name} is not defined"))),
                }
            }
            b'$' => self.variable(reader, at, depth)?,
            b'*' => {
                reader.at += 1;
                let node = items.operand(at, "*N")?;
                reader.skip_space();
                let count = reader.size("*N")?;
                optimise::repeat(at, node, count)?
            }
            b'[' => {
                let node = items.operand(at, "[N:M]")?;
                let (from, to) = reader.bounds(at)?;
                optimise::slice(at, node, from, to)?
            }
            b'-' if reader.rest().starts_with("->") => {
                reader.at += 2;
                let node = items.operand(at, "->")?;
                reader.skip_space();
                let name = reader.name(reader.place())?.to_owned();
                let shared = Shared {
                    name: name.clone(),
                    node,
                };
                let scope = self.scopes.last_mut().expect("inside of a group");
                scope.insert(name, Arc::new(shared));
                return Ok(());
            }
            _ => return Err(reader.unexpected()),
        };
        items.push(node)
    }

    /// `$NAME`: its text stands there as if in parentheses.
    fn variable(&mut self, reader: &mut Reader<'_>, at: At, depth: u16) -> Result<Node, Fault> {
        reader.at += 1;
        let name = reader.run(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_variable(name) {
            return Err(Fault::new(at, "'$' without the name of a variable"));
        }
        let Some(text) = (self.variables)(name) else {
            return Err(Fault::new(at, format!("${name}: variable not found")));
        };
        if depth + 1 >= MAX_DEPTH {
            return Err(too_deep(at));
        }
        self.text(Some(name), text.into(), depth + 1, at)
    }
}

/// Whether this can stand behind a `$`.
pub(super) fn is_variable(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// `le16:N` and its kin, `base64:CHARS`.
fn word(reader: &mut Reader<'_>, at: At) -> Result<Node, Fault> {
    let word = reader.run(|byte| byte.is_ascii_alphanumeric());
    let bytes = match word {
        "le16" | "be16" | "le32" | "be32" | "le64" | "be64" | "base64"
            if reader.peek() != Some(b':') =>
        {
            return Err(Fault::new(at, format!("'{word}' must be followed by ':'")));
        }
        "base64" => {
            reader.at += 1;
            let start = reader.place();
            let digit = |byte: u8| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte);
            let text = reader.run(digit);
            base64::decode(text).map_err(|why| Fault::new(start, why))?
        }
        "le16" | "be16" | "le32" | "be32" | "le64" | "be64" => {
            reader.at += 1;
            let bits: u32 = word[2..].parse().expect("16, 32 or 64");
            let value = reader.integer(word, u64::MAX >> (64 - bits))?;
            let len = bits as usize / 8;
            match &word[..2] {
                "le" => value.to_le_bytes()[..len].to_vec(),
                _ => value.to_be_bytes()[8 - len..].to_vec(),
            }
        }
        _ => return Err(Fault::new(at, format!("unknown word '{}'", short(word)))),
    };
    optimise::bytes(at, bytes)
}

/// `"..."`, from the opening quote.
fn string(reader: &mut Reader<'_>, at: At) -> Result<Vec<u8>, Fault> {
    let never = || Fault::new(at, "this string is never closed");
    reader.at += 1;
    let mut bytes = Vec::new();
    loop {
        let plain = reader.run(|byte| byte != b'"' && byte != b'\\');
        bytes.extend_from_slice(plain.as_bytes());
        let escape = reader.place();
        if reader.peek().ok_or_else(never)? == b'"' {
            reader.at += 1;
            return Ok(bytes);
        }
        reader.at += 1;
        let escaped = reader.peek().ok_or_else(never)?;
        reader.at += 1;
        bytes.push(match escaped {
            b'a' => 7,
            b'b' => 8,
            b'f' => 12,
            b'n' => b'\n',
            b'r' => b'\r',
            b't' => b'\t',
            b'v' => 11,
            b'x' => {
                let digits = reader.bytes_at(2);
                let byte = digits.filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let Some(&[high, low]) = byte else {
                    let why = "\\x must be followed by exactly two hexadecimal digits";
                    return Err(Fault::new(escape, why));
                };
                reader.at += 2;
                let digit = |byte: u8| char::from(byte).to_digit(16).unwrap_or(0) as u8;
                digit(high) << 4 | digit(low)
            }
            b'0'..=b'9' | b'u' | b'U' => {
                let why = "numeric and unicode escapes are not known; write \\xNN";
                return Err(Fault::new(escape, why));
            }
            other => other,
        });
    }
}

/// `@N`, `@+N`, `@-N`, `@^N`.
fn offset(reader: &mut Reader<'_>) -> Result<Move, Fault> {
    reader.at += 1;
    let make: fn(u64) -> Move = match reader.peek() {
        Some(b'+') => Move::Forward,
        Some(b'-') => Move::Back,
        Some(b'^') => Move::Align,
        _ => return Ok(Move::To(reader.size("@OFFSET")?)),
    };
    reader.at += 1;
    let at = reader.place();
    let to = make(reader.size("@OFFSET")?);
    match to {
        Move::Align(align) if !align.is_power_of_two() => {
            Err(Fault::new(at, format!("@^{align} must be a power of 2")))
        }
        to => Ok(to),
    }
}

/// `<FILE` or `<(SCRIPT)`.
fn outside(reader: &mut Reader<'_>, at: At) -> Result<What, Fault> {
    reader.at += 1;
    if reader.peek() != Some(b'(') {
        let name = reader.run(|byte| !is_space(byte) && !b")*[".contains(&byte));
        return match name {
            "" => Err(Fault::new(at, "'<' without the name of a file")),
            name if name.contains('\0') => Err(Fault::new(at, "a NUL in the name of a file")),
            name => Ok(What::File(PathBuf::from(name))),
        };
    }
    reader.at += 1;
    let mut depth = 1;
    let script = reader.run(|byte| {
        depth += match byte {
            b'(' => 1,
            b')' => -1,
            _ => 0,
        };
        depth > 0
    });
    if reader.peek().is_none() {
        return Err(Fault::new(at, "this '<(' is never closed"));
    }
    reader.at += 1;
    match script.contains('\0') {
        true => Err(Fault::new(at, "a NUL in a script")),
        false => Ok(What::Script(script.to_owned())),
    }
}

/// A place in a text. It only ever stops before or behind ASCII.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    number: u32,
}

impl<'t> Reader<'t> {
    fn place(&self) -> At {
        At {
            text: self.number,
            offset: self.at as u32,
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn bytes_at(&self, len: usize) -> Option<&'t [u8]> {
        self.text.as_bytes().get(self.at..self.at + len)
    }

    /// The bytes from here that are `wanted`.
    fn run(&mut self, mut wanted: impl FnMut(u8) -> bool) -> &'t str {
        let rest = &self.text.as_bytes()[self.at..];
        let len = rest.iter().position(|byte| !wanted(*byte));
        let start = self.at;
        self.at += len.unwrap_or(rest.len());
        // It stops at ASCII or the end, so between characters.
        self.text.get(start..self.at).unwrap_or_default()
    }

    /// White space and comments.
    fn skip_space(&mut self) {
        loop {
            self.run(is_space);
            if self.peek() != Some(b'#') {
                return;
            }
            self.run(|byte| byte != b'\n');
        }
    }

    /// A number from 0 to `max`, for `what`.
    fn integer(&mut self, what: &str, max: u64) -> Result<u64, Fault> {
        let parsed = self.number(what, |text| grammar::integer(text, 0, max.into()))?;
        Ok(u64::try_from(parsed).expect("it is in the range"))
    }

    /// A number, perhaps with a suffix, for `what`.
    fn size(&mut self, what: &str) -> Result<u64, Fault> {
        self.number(what, grammar::size)
    }

    fn number<T>(
        &mut self,
        what: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Result<T, Fault> {
        let at = self.place();
        let text = self.run(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !text.starts_with(|c: char| c.is_ascii_digit()) {
            return Err(Fault::new(at, format!("{what}: a number must follow")));
        }
        parse(text).map_err(|why| Fault::new(at, format!("{what}: {}: {why}", short(text))))
    }

    /// `\NAME`. A `-` that begins `->` is not part of it.
    fn name(&mut self, at: At) -> Result<&'t str, Fault> {
        if self.peek() != Some(b'\\') {
            return Err(Fault::new(at, "'->' must be followed by a \\NAME"));
        }
        self.at += 1;
        let start = self.at;
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        while let Some(byte) = self.peek()
            && (is_name(byte) || byte == b'-' && !self.rest().starts_with("->"))
        {
            self.at += 1;
        }
        match &self.text[start..self.at] {
            "" => Err(Fault::new(at, "'\\' without a name")),
            name => Ok(name),
        }
    }

    /// `[k:m]`, from the bracket.
    fn bounds(&mut self, at: At) -> Result<(u64, Option<u64>), Fault> {
        self.at += 1;
        let from = self.bound()?.unwrap_or(0);
        self.expect(b':', at)?;
        let to = self.bound()?;
        self.expect(b']', at)?;
        Ok((from, to))
    }

    fn bound(&mut self) -> Result<Option<u64>, Fault> {
        self.skip_space();
        let bound = match self.peek() {
            Some(b'0'..=b'9') => Some(self.size("[N:M]")?),
            _ => None,
        };
        self.skip_space();
        Ok(bound)
    }

    fn expect(&mut self, byte: u8, open: At) -> Result<(), Fault> {
        if self.peek() != Some(byte) {
            return Err(Fault::new(open, "a slice has the form [N:M]"));
        }
        self.at += 1;
        Ok(())
    }

    fn unexpected(&self) -> Fault {
        let what = self.rest().chars().next().unwrap_or_default();
        Fault::new(
            self.place(),
            format!("unexpected '{}'", what.escape_debug()),
        )
    }
}

/// What `isspace` of the C locale knows.
fn is_space(byte: u8) -> bool {
    byte.is_ascii_whitespace() || byte == 0x0b
}

/// At most 40 bytes of an ASCII text, for messages.
fn short(text: &str) -> &str {
    text.get(..40).unwrap_or(text)
}
