//! Long lists: printed page by page, however long they are.

use std::io::{self, Write};

use cli::{Exit, Failure};
use control::plat::{Answer, Cursor, Filter, Page, Verb, Wanted};
use serde::Serialize;

use super::{arguments::Listed, ask::Asking, odd, show};

/// Writes a line. False if nobody reads any more.
pub(super) fn print(line: &str) -> bool {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")
        .and_then(|()| stdout.flush())
        .is_ok()
}

/// Prints the sessions.
pub(super) async fn sessions(list: &Listed, filter: Filter) -> Result<Exit, Failure> {
    let walk = Walk {
        list,
        filter,
        schema: "openclat-plat-session/1",
        head: show::session_head(),
    };
    let page = |answer| {
        if let Answer::Sessions(page) = answer {
            Ok(page)
        } else {
            Err(odd())
        }
    };
    walk.run(Verb::SessionList, page, show::session).await
}

/// Prints the bindings.
pub(super) async fn bindings(list: &Listed, filter: Filter) -> Result<Exit, Failure> {
    let walk = Walk {
        list,
        filter,
        schema: "openclat-plat-bib/1",
        head: show::binding_head(),
    };
    let page = |answer| {
        if let Answer::Bindings(page) = answer {
            Ok(page)
        } else {
            Err(odd())
        }
    };
    walk.run(Verb::BibList, page, show::binding).await
}

struct Walk<'a> {
    list: &'a Listed,
    filter: Filter,
    schema: &'static str,
    head: String,
}

impl Walk<'_> {
    async fn run<T: Serialize>(
        self,
        verb: fn(Wanted) -> Verb,
        page: fn(Answer) -> Result<Page<T>, Failure>,
        row: fn(&T) -> String,
    ) -> Result<Exit, Failure> {
        let mut service = Asking::connect(&self.list.service).await?;
        let mut stdout = io::BufWriter::new(io::stdout());
        let mut left = self.list.limit.unwrap_or(usize::MAX);
        let mut from = Some(Cursor::default());
        if !self.list.json && writeln!(stdout, "{}", self.head).is_err() {
            return Ok(Exit::Ok);
        }
        while let Some(cursor) = from.filter(|_| left > 0) {
            let wanted = Wanted {
                filter: self.filter.clone(),
                from: cursor,
                limit: Some(left),
            };
            let page = page(service.ask(verb(wanted)).await?)?;
            for item in page.rows.iter().take(left) {
                let line = if self.list.json {
                    cli::json_line(self.schema, item)?
                } else {
                    row(item)
                };
                // Whoever reads may have seen enough.
                if writeln!(stdout, "{line}").is_err() {
                    return Ok(Exit::Ok);
                }
            }
            left = left.saturating_sub(page.rows.len());
            from = page.next;
        }
        let _ = stdout.flush();
        Ok(Exit::Ok)
    }
}
