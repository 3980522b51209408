//! Pages of their own: no script, nothing from elsewhere, light and dark, and fit to print.

use std::borrow::Cow;

use crate::types::money::Money;

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem; }
p { margin: .25rem 0; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .6rem; border-bottom: 1px solid color-mix(in srgb, currentColor 20%, transparent); }
th { text-align: left; }
th.n, td.n { text-align: right; }
tfoot td { font-weight: 600; }
figure { margin: 1rem 0; }
figcaption { font-size: .9rem; }
svg { width: 100%; height: auto; font: 12px system-ui, sans-serif; }
svg text { fill: currentColor; }
@media print { body { margin: 0; max-width: none; } }
";

/// A whole page of HTML; the body is HTML already, the title is not.
pub(crate) fn leaf(title: &str, body: &str) -> String {
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>{}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n{body}</main>\n</body>\n</html>\n",
        escape(title)
    )
}

/// A table with columns of words, then columns of numbers.
pub(crate) fn table(
    title: &str,
    words: &[&str],
    numbers: &[&str],
    rows: &str,
    foot: &str,
) -> String {
    let head = words
        .iter()
        .map(|name| format!("<th scope=\"col\">{name}</th>"))
        .chain(
            numbers
                .iter()
                .map(|name| format!("<th scope=\"col\" class=\"n\">{name}</th>")),
        );
    let head: String = head.collect();
    let foot = if foot.is_empty() {
        String::new()
    } else {
        format!("<tfoot>{foot}</tfoot>\n")
    };
    format!(
        "<h2>{title}</h2>\n<div class=\"wide\"><table>\n<thead><tr>{head}</tr></thead>\n\
         <tbody>\n{rows}</tbody>\n{foot}</table></div>\n"
    )
}

/// A row; the words are escaped already.
pub(crate) fn line(words: &[Cow<'_, str>], numbers: &[String]) -> String {
    let words = words.iter().map(|word| format!("<td>{word}</td>"));
    let numbers = numbers
        .iter()
        .map(|number| format!("<td class=\"n\">{number}</td>"));
    let cells: String = words.chain(numbers).collect();
    format!("<tr>{cells}</tr>\n")
}

/// An amount of decimal dollars, to a hundredth of a cent.
pub(crate) fn dollars(decimal: &str) -> String {
    decimal.parse::<Money>().map_or_else(
        |_| escape(decimal).into_owned(),
        |money| format!("{money:.4}"),
    )
}

/// A text as HTML shows it.
pub(crate) fn escape(text: &str) -> Cow<'_, str> {
    if !text.contains(['&', '<', '>', '"', '\'']) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}
