//! `blkit info`, or the program called as `nbdinfo`: what a server and its exports are like.
//!
//! Options, output and exit statuses are nbdinfo's of libnbd 1.24. Nothing is printed unless all is
//! known.

mod export;
mod map;
mod options;

use std::{
    ffi::OsString,
    io::Write,
    process::{Command, ExitCode},
};

use block::{Access, Error, ErrorKind, Reactor, Result};
use nbd::{
    client::{ClientOptions, Connected, Event, Goal},
    uri::Uri,
};
use sources::nbd::{NbdConfig, Upstream};

use crate::tools::{self, Disk, Place, Started};
use export::{Export, server_json, server_text};
use options::{Options, Question};

/// Bytes at the start of an export that say what is in it.
const START: u64 = 8 << 10;

/// The exit status for "no".
const NO: u8 = 2;

/// Runs it; `name` is what it is called.
pub fn main(name: &str, words: Vec<OsString>) -> ExitCode {
    crate::log::init(0);
    let asked = options::parse(name, words);
    let options = match tools::understood(name, options::usage, asked) {
        Ok(options) => options,
        Err(status) => return status,
    };
    match answer(&options) {
        Ok(Answer::Text(text)) => tools::print(name, &text),
        Ok(Answer::Yes) => ExitCode::SUCCESS,
        Ok(Answer::No) => ExitCode::from(NO),
        Err(error) => {
            let failed = tools::fail(name, &error);
            if error.kind() == ErrorKind::NotFound && options.question != Question::List {
                eprintln!("{name}: suggestion: to list all exports on the server, use --list");
            }
            failed
        }
    }
}

enum Answer {
    Text(String),
    Yes,
    No,
}

fn answer(options: &Options) -> Result<Answer> {
    let (_started, uri) = match &options.place {
        Place::Word(word) => {
            let text = word.to_string_lossy();
            if !sources::nbd::is_uri(&text) {
                let what = format!("'{text}' is not an NBD URI");
                let hint = "nbd://HOST/EXPORT, or nbd+unix:///EXPORT?socket=PATH";
                return Err(Error::new(ErrorKind::Config, what).hint(hint));
            }
            (None, text.into_owned())
        }
        Place::Command(command) => {
            let started = Started::new(command)?;
            let uri = started.uri();
            (Some(started), uri)
        }
    };
    let parsed: Uri = uri
        .parse()
        .map_err(|error: nbd::uri::UriError| Error::new(ErrorKind::Config, error.to_string()))?;
    let server = Asker {
        config: config_of(uri.clone(), context_of(&options.question))?,
        uri: parsed,
    };
    tools::run(async |reactor| server.answer(&reactor, options).await)
}

/// A context beyond the one that is always asked for.
fn context_of(question: &Question) -> Option<String> {
    match question {
        Question::Map { context, .. } if context != nbd::proto::CONTEXT_BASE_ALLOCATION => {
            Some(context.clone())
        }
        _ => None,
    }
}

fn config_of(uri: String, context: Option<String>) -> Result<NbdConfig> {
    let mut config = NbdConfig::of_uri(uri)?;
    config.context.extend(context);
    Ok(config)
}

/// A server, and the way to it.
struct Asker {
    config: NbdConfig,
    uri: Uri,
}

impl Asker {
    async fn answer(&self, reactor: &Reactor, options: &Options) -> Result<Answer> {
        let upstream = Upstream::new(&self.config)?;
        let text = match &options.question {
            Question::Show => {
                let name = upstream.export().to_owned();
                let export = self.look(reactor, &upstream, name, None, options).await?;
                show(&[export], options)
            }
            Question::List => {
                let exports = self.list(reactor, &upstream, options).await?;
                show(&exports, options)
            }
            Question::Size => {
                let connected = info(reactor, &upstream, upstream.export()).await?;
                format!("{}\n", connected.size)
            }
            Question::Uri => {
                info(reactor, &upstream, upstream.export()).await?;
                let uri = self.uri.to_string();
                match options.json {
                    true => format!("{}\n", tools::json_string(&uri)),
                    false => format!("{uri}\n"),
                }
            }
            Question::Can { ability, not } => {
                let connected = info(reactor, &upstream, upstream.export()).await?;
                return Ok(match ability.is_of(&connected) != *not {
                    true => Answer::Yes,
                    false => Answer::No,
                });
            }
            Question::Map { context, totals } => {
                let disk = self.open(reactor, upstream.export()).await?;
                let runs = map::runs(reactor, &**disk.device(), context).await;
                disk.close(reactor).await?;
                told(&runs?, context, *totals, options.json)
            }
        };
        Ok(Answer::Text(text))
    }

    /// Every export.
    async fn list(
        &self,
        reactor: &Reactor,
        upstream: &Upstream,
        options: &Options,
    ) -> Result<Vec<Export>> {
        let mut names = Vec::new();
        let asked = ClientOptions {
            goal: Goal::List,
            ..ClientOptions::default()
        };
        let told = |event| {
            if let Event::Export { name, description } = event {
                names.push((name, Some(description).filter(|text| !text.is_empty())));
            }
        };
        upstream.ask(reactor, asked, told).await?;
        let mut exports = Vec::new();
        for (name, description) in names {
            exports.push(
                self.look(reactor, upstream, name, description, options)
                    .await?,
            );
        }
        Ok(exports)
    }

    /// Everything about one export.
    async fn look(
        &self,
        reactor: &Reactor,
        upstream: &Upstream,
        name: String,
        listed: Option<String>,
        options: &Options,
    ) -> Result<Export> {
        let connected = info(reactor, upstream, &name).await?;
        let mut contexts = Vec::new();
        let asked = ClientOptions {
            export: name.clone(),
            goal: Goal::ListContexts,
            ..ClientOptions::default()
        };
        let told = |event| {
            if let Event::Context(name) = event {
                contexts.push(name);
            }
        };
        if let Err(error) = upstream.ask(reactor, asked, told).await {
            tracing::debug!("no list of metadata contexts: {}", error.chain());
        }
        let content = match options.content {
            true => self.content(reactor, &name).await?,
            false => None,
        };
        Ok(Export {
            description: listed.or_else(|| connected.description.clone()),
            uri: Uri {
                export: name.clone(),
                ..self.uri.clone()
            },
            name,
            connected,
            contexts,
            content,
        })
    }

    /// What file(1) makes of the start of an export.
    async fn content(&self, reactor: &Reactor, name: &str) -> Result<Option<String>> {
        let disk = self.open(reactor, name).await?;
        let start = START.min(disk.device().limits().size);
        let start = disk.head(reactor, start).await;
        disk.close(reactor).await?;
        let start = start?;
        let asked = reactor.blocking(move || identify(&start)).await;
        Ok(asked.ok().flatten())
    }

    async fn open(&self, reactor: &Reactor, name: &str) -> Result<Disk> {
        let uri = Uri {
            export: name.to_owned(),
            ..self.uri.clone()
        };
        let config = NbdConfig {
            uri: Some(uri.to_string()),
            ..self.config.clone()
        };
        Disk::open(reactor, sources::nbd::new(config)?, name, Access::ReadOnly).await
    }
}

/// What the server says about an export.
async fn info(reactor: &Reactor, upstream: &Upstream, name: &str) -> Result<Connected> {
    let asked = ClientOptions {
        export: name.to_owned(),
        goal: Goal::Info,
        full_info: true,
        // Some abilities are only there with a context.
        contexts: vec![nbd::proto::CONTEXT_BASE_ALLOCATION.to_owned()],
        ..ClientOptions::default()
    };
    let answer = upstream.ask(reactor, asked, |_| {}).await?;
    answer.ok_or_else(|| {
        Error::new(
            ErrorKind::Format,
            "the server told nothing about the export",
        )
    })
}

/// Asks file(1); `None` if there is no such program, or it cannot say.
fn identify(start: &[u8]) -> Option<String> {
    // A file and not a pipe: some of its tests look at the end.
    let mut copy = tempfile::NamedTempFile::new().ok()?;
    copy.write_all(start).ok()?;
    let told = Command::new("file")
        .args(["-b", "--"])
        .arg(copy.path())
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&told.stdout).trim().to_owned();
    (told.status.success() && !text.is_empty()).then_some(text)
}

fn show(exports: &[Export], options: &Options) -> String {
    let Some(first) = exports.first() else {
        return match options.json {
            true => "{\n\"exports\": []\n}\n".into(),
            false => String::new(),
        };
    };
    if options.json {
        return server_json(&first.connected, exports);
    }
    let mut text = server_text(&first.connected);
    text.extend(exports.iter().map(|export| export.text(options.color)));
    text
}

fn told(runs: &[block::Extent], context: &str, totals: bool, json: bool) -> String {
    let size = runs.iter().map(|run| run.len).sum();
    match (totals, json) {
        (false, false) => map::text(context, runs),
        (false, true) => map::json(context, runs),
        (true, false) => map::totals_text(context, &map::totals(runs), size),
        (true, true) => map::totals_json(context, &map::totals(runs), size),
    }
}
