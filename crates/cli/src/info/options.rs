//! What nbdinfo can be asked, and how.

use std::{ffi::OsString, io::IsTerminal};

use super::export::Ability;
use crate::{
    getopt::{self, Item, Spelling},
    tools::{Asked, Mistake, Place, listed, take_places, version},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Opt {
    Help,
    Version,
    ShortOptions,
    LongOptions,
    Can,
    Cannot,
    Color,
    NoColor,
    Content,
    NoContent,
    Json,
    List,
    Map,
    Size,
    Totals,
    Uri,
}

/// All spellings. Those that `--long-options` lists are in its order.
const SPELLINGS: &[Spelling<Opt>] = &[
    Spelling::flag("help", Opt::Help),
    Spelling::with("can", Opt::Can),
    Spelling::with("cannot", Opt::Cannot),
    Spelling::with("can-not", Opt::Cannot),
    Spelling::with("cant", Opt::Cannot),
    Spelling::flag("color", Opt::Color),
    Spelling::flag("colors", Opt::Color),
    Spelling::flag("colour", Opt::Color),
    Spelling::flag("colours", Opt::Color),
    Spelling::flag("no-color", Opt::NoColor),
    Spelling::flag("no-colors", Opt::NoColor),
    Spelling::flag("no-colour", Opt::NoColor),
    Spelling::flag("no-colours", Opt::NoColor),
    Spelling::flag("content", Opt::Content),
    Spelling::flag("no-content", Opt::NoContent),
    Spelling::with("has", Opt::Can),
    Spelling::with("hasnot", Opt::Cannot),
    Spelling::with("has-not", Opt::Cannot),
    Spelling::with("hasnt", Opt::Cannot),
    Spelling::with("have", Opt::Can),
    Spelling::with("havent", Opt::Cannot),
    Spelling::with("havenot", Opt::Cannot),
    Spelling::with("have-not", Opt::Cannot),
    Spelling::with("is", Opt::Can),
    Spelling::with("isnot", Opt::Cannot),
    Spelling::with("is-not", Opt::Cannot),
    Spelling::with("isnt", Opt::Cannot),
    Spelling::flag("json", Opt::Json),
    Spelling::flag("list", Opt::List),
    Spelling::maybe("map", Opt::Map),
    Spelling::flag("size", Opt::Size),
    Spelling::flag("total", Opt::Totals),
    Spelling::flag("totals", Opt::Totals),
    Spelling::flag("uri", Opt::Uri),
    Spelling::flag("version", Opt::Version),
    Spelling::flag("L", Opt::List),
    Spelling::flag("V", Opt::Version),
    Spelling::flag("short-options", Opt::ShortOptions),
    Spelling::flag("long-options", Opt::LongOptions),
];

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// All about one export.
    Show,
    /// All about every export.
    List,
    /// How large it is.
    Size,
    /// The canonical URI.
    Uri,
    /// Whether it has an ability, or has it not.
    Can {
        /// The ability.
        ability: Ability,
        /// Asked for its absence.
        not: bool,
    },
    /// What is where, in the words of a metadata context.
    Map {
        /// The context.
        context: String,
        /// Summed up.
        totals: bool,
    },
}

/// A command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// What is asked.
    pub question: Question,
    /// Answer in JSON.
    pub json: bool,
    /// Answer in colours.
    pub color: bool,
    /// Look at the contents.
    pub content: bool,
    /// Of which server.
    pub place: Place,
}

/// Understands the words behind the program's name.
///
/// # Errors
/// What nbdinfo says.
pub fn parse(name: &str, words: Vec<OsString>) -> Result<Asked<Options>, Mistake> {
    let mut given = Given::default();
    for item in getopt::parse(words, SPELLINGS).map_err(|text| Mistake::Usage(Some(text)))? {
        match item {
            Item::Word(word) => given.words.push(word),
            Item::Option(opt, value) => {
                if let Some(text) = given.take(name, opt, &value)? {
                    return Ok(Asked::Text(text));
                }
            }
        }
    }
    given.finish().map(Asked::Options)
}

#[derive(Default)]
struct Given {
    questions: Vec<Question>,
    totals: bool,
    json: bool,
    color: Option<bool>,
    content: Option<bool>,
    words: Vec<OsString>,
}

impl Given {
    fn take(&mut self, name: &str, opt: Opt, value: &OsString) -> Result<Option<String>, Mistake> {
        match opt {
            Opt::Help => return Ok(Some(usage(name))),
            Opt::Version => return Ok(Some(version(name))),
            Opt::ShortOptions => return Ok(Some(listed(SPELLINGS, is_hidden, false))),
            Opt::LongOptions => return Ok(Some(listed(SPELLINGS, is_hidden, true))),
            Opt::Can | Opt::Cannot => {
                let asked = value.to_string_lossy();
                let ability = Ability::named(&asked).ok_or_else(|| {
                    Mistake::Plain(format!("unknown --can/--is/--has option: {asked}"))
                })?;
                let not = opt == Opt::Cannot;
                self.questions.push(Question::Can { ability, not });
            }
            Opt::Color => self.color = Some(true),
            Opt::NoColor => self.color = Some(false),
            Opt::Content => self.content = Some(true),
            Opt::NoContent => self.content = Some(false),
            Opt::Json => self.json = true,
            Opt::List => self.questions.push(Question::List),
            Opt::Map => {
                let context = match value.is_empty() {
                    true => nbd::proto::CONTEXT_BASE_ALLOCATION.to_owned(),
                    false => value.to_string_lossy().into_owned(),
                };
                let totals = false;
                self.questions.push(Question::Map { context, totals });
            }
            Opt::Size => self.questions.push(Question::Size),
            Opt::Totals => self.totals = true,
            Opt::Uri => self.questions.push(Question::Uri),
        }
        Ok(None)
    }

    fn finish(self) -> Result<Options, Mistake> {
        let plain = |text: &str| Mistake::Plain(text.to_owned());
        let mut questions = self.questions;
        if questions.len() > 1 {
            return Err(plain(
                "you cannot use --can, --cannot, --list, --map, --size and --uri together.",
            ));
        }
        let mut question = questions.pop().unwrap_or(Question::Show);
        match &mut question {
            Question::Map { totals, .. } => *totals = self.totals,
            _ if self.totals => {
                return Err(plain("you must use --totals only with --map option."));
            }
            _ => {}
        }
        if self.content.is_some() && !matches!(question, Question::Show | Question::List) {
            return Err(plain(
                "--content and --no-content can only be used when showing information about exports.",
            ));
        }
        let places = take_places(self.words).map_err(|error| Mistake::Plain(error.to_string()))?;
        let Ok([place]) = <[Place; 1]>::try_from(places) else {
            return Err(Mistake::Usage(None));
        };
        Ok(Options {
            content: self.content.unwrap_or(question == Question::Show),
            question,
            json: self.json,
            color: self
                .color
                .unwrap_or_else(|| std::io::stdout().is_terminal()),
            place,
        })
    }
}

fn is_hidden(opt: Opt) -> bool {
    matches!(opt, Opt::ShortOptions | Opt::LongOptions)
}

/// How the program is used.
pub fn usage(name: &str) -> String {
    let forms = [
        "[--json] URI | [ CMD ARGS ... ]",
        "--list [--json] URI | [ CMD ARGS ... ]",
        "--size URI | [ CMD ARGS ... ]",
        "--uri [--json] URI | [ CMD ARGS ... ]",
        "--can|--cannot ABILITY URI | [ CMD ARGS ... ]",
        "--is|--isnt ABILITY URI | [ CMD ARGS ... ]",
        "--map[=CONTEXT] [--totals] [--json] URI | [ CMD ARGS ... ]",
    ];
    let mut text = String::from("\nTells about NBD servers and their exports:\n\n");
    for form in forms {
        text.push_str(&format!("    {name} {form}\n"));
    }
    text.push_str(&format!(
        "\n\
         CMD is started, and ends, with {name}; put -- before [ if it has options.\n\
         --is and --can: {}.\n\
         They print nothing; the exit status is 0 for yes, 2 for no, 1 for an error.\n\n\
         Other options: --content, --no-content (look at the contents; default for one export),\n\
         --color, --no-color, -L (--list), --help, -V (--version).\n\n",
        Ability::all().collect::<Vec<_>>().join(", ")
    ));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Question, String> {
        let words = words.iter().map(OsString::from).collect();
        match parse("nbdinfo", words) {
            Ok(Asked::Options(options)) => Ok(options.question),
            Ok(Asked::Text(text)) => Err(text),
            Err(Mistake::Usage(text)) => Err(format!("usage: {}", text.unwrap_or_default())),
            Err(Mistake::Plain(text)) => Err(text),
        }
    }

    #[test]
    fn one_question_of_one_server() {
        assert_eq!(asked(&["nbd://x"]), Ok(Question::Show));
        assert_eq!(asked(&["nbd://x", "-L"]), Ok(Question::List));
        let map = |context: &str, totals| Question::Map {
            context: context.into(),
            totals,
        };
        assert_eq!(
            asked(&["--map", "nbd://x"]),
            Ok(map("base:allocation", false))
        );
        assert_eq!(
            asked(&["--map=a:b", "--totals", "nbd://x"]),
            Ok(map("a:b", true))
        );
        assert_eq!(
            asked(&["--size", "--", "[", "a", "-r", "]"]),
            Ok(Question::Size)
        );
        let can = |ability: &str, not| Question::Can {
            ability: Ability::named(ability).unwrap(),
            not,
        };
        for (words, question) in [
            (["--can", "multi-conn"], can("multi_conn", false)),
            (["--has", "MultiConn"], can("multi-conn", false)),
            (["--isnt", "read-only"], can("readonly", true)),
        ] {
            assert_eq!(asked(&[words[0], words[1], "nbd://x"]), Ok(question));
        }
    }

    #[test]
    fn mistakes_are_told_in_nbdinfos_words() {
        let table = [
            (&[][..], "usage: "),
            (&["a", "b"], "usage: "),
            (&["--foo"], "usage: unrecognized option '--foo'"),
            (
                &["--size", "--map", "x"],
                "you cannot use --can, --cannot, --list, --map, --size and --uri together.",
            ),
            (
                &["--totals", "x"],
                "you must use --totals only with --map option.",
            ),
            (
                &["--can", "fly", "x"],
                "unknown --can/--is/--has option: fly",
            ),
            (&["[", "x"], "there is a [ without a ]"),
        ];
        for (words, text) in table {
            assert_eq!(asked(words).unwrap_err(), text, "{words:?}");
        }
        assert!(
            asked(&["--version"])
                .unwrap_err()
                .starts_with("nbdinfo 1.24")
        );
        assert!(asked(&["--help"]).unwrap_err().contains("multi-conn"));
        assert!(
            asked(&["--long-options"])
                .unwrap_err()
                .contains("--havenot\n")
        );
    }
}
