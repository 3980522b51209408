//! What a run is told of its inputs: lines of its control document, or, where it has none, of what it is
//! delivered with.

use std::fmt::Write as _;

use crate::types::input::{Input, Source};

/// The lines for inputs, each with the address that `address` gives for it:
///
/// ```text
/// input0 URL                  where it is read
/// input0.to PATH              where it goes to
/// input0.id HEX               what tells it from another one at the same place
/// input0.sum SHA256           what it must have, where that is known
/// input0.bytes NUMBER         its length, where that is known
/// input0.unpack tar|tgz       how it is unpacked, if it is
/// ```
///
/// # Errors
/// What `address` says.
pub fn input_lines<E>(
    inputs: &[Input],
    mut address: impl FnMut(&Input) -> Result<String, E>,
) -> Result<String, E> {
    let mut text = String::new();
    for (number, input) in inputs.iter().enumerate() {
        // Writing to a text does not fail.
        let _ = writeln!(text, "input{number} {}", address(input)?);
        let mut line = |name: &str, value: &str| {
            let _ = writeln!(text, "input{number}.{name} {value}");
        };
        line("to", &input.place());
        line("id", &input.identity());
        if let Some(sum) = input.sum() {
            line("sum", sum);
        }
        if let Some(bytes) = input.bytes() {
            line("bytes", &bytes.to_string());
        }
        if let Some(packing) = input.unpacks() {
            line("unpack", packing.as_str());
        }
    }
    Ok(text)
}

/// The lines for inputs that all have addresses of their own; `None`: there are none, or one has no
/// address.
pub fn fetch_lines(inputs: &[Input]) -> Option<String> {
    let own = |input: &Input| match &input.from {
        Source::Address(address) => Ok(address.clone()),
        Source::Object(_) | Source::Path(_) => Err(()),
    };
    let text = input_lines(inputs, own).ok()?;
    (!text.is_empty()).then_some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::input::{Found, Packing};

    #[test]
    fn a_line_for_each_thing_that_is_known() {
        let mut inputs = vec![
            Input {
                from: Source::Address("https://a.example/m.bin".to_owned()),
                to: "/w".to_owned(),
                into: true,
                sha256: Some("ab".repeat(32)),
                packing: None,
                found: None,
            },
            Input {
                from: Source::Object("set.tgz".to_owned()),
                to: "/d".to_owned(),
                into: false,
                sha256: None,
                packing: Some(Packing::TarGz),
                found: Some(Found {
                    mark: "etag".to_owned(),
                    bytes: 70,
                    is_directory: false,
                }),
            },
        ];
        let text = input_lines(&inputs, |input| {
            Ok::<_, ()>(format!("<{}>", input.origin()))
        });
        let expected = format!(
            "input0 <https://a.example/m.bin>\ninput0.to /w/m.bin\ninput0.id {}\ninput0.sum {}\n\
             input1 <storage:set.tgz>\ninput1.to /d\ninput1.id {}\ninput1.bytes 70\ninput1.unpack tgz\n",
            inputs[0].identity(),
            "ab".repeat(32),
            inputs[1].identity(),
        );
        assert_eq!(text, Ok(expected));
        assert_eq!(
            fetch_lines(&inputs),
            None,
            "an object has no address of its own"
        );
        inputs.pop();
        assert!(
            fetch_lines(&inputs)
                .unwrap()
                .starts_with("input0 https://a.example/m.bin\n")
        );
        assert_eq!(fetch_lines(&[]), None);
    }
}
