//! Asking: before something is destroyed, and which of several is meant.

use std::io::{self, BufRead, IsTerminal as _, Write as _};

use crate::args::{Consent, Format, OutputFormat};
use crate::failure::Failure;
use crate::text::table::printable;

/// Asks a question that is answered by yes or no, unless consent was given in advance.
///
/// The question goes to standard output, but not among JSON.
pub(crate) async fn agreed(consent: &Consent, format: &Format, question: String) -> Result<bool, Failure> {
    if consent.yes {
        return Ok(true);
    }
    let beside = format.output == OutputFormat::Json;
    // Reading blocks; Ctrl-C must not have to wait for it.
    tokio::task::spawn_blocking(move || ask(&question, beside))
        .await
        .unwrap_or_else(|_| Err(Failure::aborted()))
}

fn ask(question: &str, beside: bool) -> Result<bool, Failure> {
    let show = |text: &str| -> io::Result<()> {
        if beside {
            io::stderr().write_all(text.as_bytes())
        } else {
            let mut out = io::stdout().lock();
            out.write_all(text.as_bytes())?;
            out.flush()
        }
    };
    let prompt = format!("{} [y/N]: ", printable(question));
    loop {
        show(&prompt)?;
        let mut answer = String::new();
        if !matches!(io::stdin().lock().read_line(&mut answer), Ok(1..)) {
            show("\n")?;
            return Err(Failure::aborted());
        }
        match answer.trim().to_lowercase().as_str() {
            "y" | "yes" => return Ok(true),
            "n" | "no" | "" => return Ok(false),
            _ => show("Error: invalid input\n")?,
        }
    }
}

/// Asks which of these is meant; its index.
///
/// # Errors
/// Without a terminal there is no answer.
pub(crate) async fn choose(title: &'static str, labels: Vec<String>) -> Result<usize, Failure> {
    let chosen = choice(title, labels, "Number", |numbers| numbers.len() == 1).await?;
    chosen.into_iter().next().ok_or_else(Failure::aborted)
}

/// Asks which of these are meant; their indices, in the order of the answer.
///
/// # Errors
/// Without a terminal there is no answer.
pub(crate) async fn choose_several(title: &'static str, labels: Vec<String>) -> Result<Vec<usize>, Failure> {
    choice(title, labels, "Numbers, separated by commas", |_| true).await
}

async fn choice(
    title: &'static str,
    labels: Vec<String>,
    prompt: &'static str,
    fits: fn(&[usize]) -> bool,
) -> Result<Vec<usize>, Failure> {
    if !io::stdin().is_terminal() {
        crate::say("Warning: Input is not a terminal (fd=0).");
        return Err(Failure::aborted());
    }
    // Reading blocks; Ctrl-C must not have to wait for it.
    let asking = tokio::task::spawn_blocking(move || {
        let mut out = io::stdout();
        writeln!(out, "{title}")?;
        for (number, label) in (1..).zip(&labels) {
            writeln!(out, "  {number}) {}", printable(label))?;
        }
        loop {
            write!(out, "{prompt}: ")?;
            out.flush()?;
            let mut answer = String::new();
            if !matches!(io::stdin().lock().read_line(&mut answer), Ok(1..)) {
                writeln!(out)?;
                return Err(Failure::aborted());
            }
            match numbers(&answer, labels.len()).filter(|numbers| fits(numbers)) {
                Some(numbers) => return Ok(numbers),
                None => writeln!(out, "Error: invalid input")?,
            }
        }
    });
    asking.await.unwrap_or_else(|_| Err(Failure::aborted()))
}

/// Numbers from 1 as indices, each once; `None` if one of them stands for nothing.
fn numbers(text: &str, count: usize) -> Option<Vec<usize>> {
    let mut found = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let number: usize = part.parse().ok()?;
        let index = number.checked_sub(1).filter(|index| *index < count)?;
        if !found.contains(&index) {
            found.push(index);
        }
    }
    (!found.is_empty()).then_some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_numbers_of_the_list() {
        assert_eq!(numbers("2\n", 3), Some(vec![1]));
        assert_eq!(numbers(" 3, 1,3 ", 3), Some(vec![2, 0]));
        for wrong in ["", ",", "0", "4", "a", "1,x", "-1", "1 2"] {
            assert_eq!(numbers(wrong, 3), None, "{wrong}");
        }
    }
}
