//! Quantities with units, as people write them. An error says what would be right.

use std::time::Duration;

use super::money::Money;

/// A family of units: each with its worth in the unit that haggle counts in.
pub(crate) struct Unit {
    /// A quantity that is right, for messages.
    pub(crate) example: &'static str,
    /// The units.
    pub(crate) units: &'static [(&'static str, f64)],
    /// Whether only whole numbers of the counted unit are taken.
    pub(crate) whole: bool,
}

/// Memory in the marketplace's MB. It counts in MiB and calls them MB: 1000 of them are a GB here,
/// so that `24GB` takes the cards that are sold as such and report 24,564.
pub(crate) const MEMORY: Unit = Unit {
    example: "24GB",
    units: &[
        ("MB", 1.0),
        ("GB", 1000.0),
        ("TB", 1e6),
        ("MiB", 1.0),
        ("GiB", 1024.0),
        ("TiB", 1_048_576.0),
    ],
    whole: false,
};

/// Disk in whole GB.
pub(crate) const DISK: Unit = Unit {
    example: "40GB",
    units: &[("GB", 1.0), ("TB", 1000.0)],
    whole: true,
};

/// Traffic in GB.
pub(crate) const TRAFFIC: Unit = Unit {
    example: "20GB",
    units: &[("MB", 0.001), ("GB", 1.0), ("TB", 1000.0)],
    whole: false,
};

/// Network speed in Mbit/s.
pub(crate) const NETWORK: Unit = Unit {
    example: "500Mbit/s",
    units: &[
        ("Mbit/s", 1.0),
        ("Gbit/s", 1000.0),
        ("Mbps", 1.0),
        ("Gbps", 1000.0),
    ],
    whole: false,
};

/// Disk speed in MB/s.
pub(crate) const DISK_SPEED: Unit = Unit {
    example: "500MB/s",
    units: &[("MB/s", 1.0), ("GB/s", 1000.0)],
    whole: false,
};

/// Bus speed in GB/s.
pub(crate) const BUS_SPEED: Unit = Unit {
    example: "12GB/s",
    units: &[("GB/s", 1.0), ("MB/s", 0.001), ("TB/s", 1000.0)],
    whole: false,
};

/// An amount of money and what it is per.
pub(crate) struct Price {
    /// A price that is right, for messages.
    pub(crate) example: &'static str,
    /// What may follow the number.
    pub(crate) per: &'static [&'static str],
}

/// Dollars.
pub(crate) const DOLLARS: Price = Price {
    example: "$25",
    per: &[""],
};

/// Dollars per raw GPU-hour.
pub(crate) const PER_GPU_HOUR: Price = Price {
    example: "$0.45/gpu-hour",
    per: &["/gpu-hour", "/gpu-h"],
};

/// Dollars per hour.
pub(crate) const PER_HOUR: Price = Price {
    example: "$2.50/hour",
    per: &["/hour", "/h"],
};

/// Dollars per GB.
pub(crate) const PER_GB: Price = Price {
    example: "$0.01/GB",
    per: &["/GB"],
};

/// Dollars per GB and month of 720 hours.
pub(crate) const PER_GB_MONTH: Price = Price {
    example: "$0.30/GB-month",
    per: &["/GB-month"],
};

/// Splits `24GB` and `24 GB` into the number and the unit.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A decimal number without sign or exponent.
fn number(text: &str) -> Option<f64> {
    let plain = text.starts_with(|c: char| c.is_ascii_digit());
    plain
        .then(|| text.parse().ok())
        .flatten()
        .filter(|n: &f64| n.is_finite())
}

impl Unit {
    /// The units, as a list for messages.
    pub(crate) fn names(&self) -> String {
        let names: Vec<&str> = self.units.iter().map(|&(name, _)| name).collect();
        names.join(", ")
    }

    /// A quantity in the counted unit.
    pub(crate) fn read(&self, text: &str) -> Result<f64, String> {
        let (digits, unit) = split(text);
        let Some(number) = number(digits) else {
            return Err(format!(
                "write a number and a unit, such as \"{}\"",
                self.example
            ));
        };
        if unit.is_empty() {
            return Err(format!(
                "the unit is missing: one of {}, such as \"{}\"",
                self.names(),
                self.example
            ));
        }
        let exact = self.units.iter().find(|&&(name, _)| name == unit);
        let Some(&(_, worth)) = exact else {
            let similar = self
                .units
                .iter()
                .find(|(name, _)| name.eq_ignore_ascii_case(unit));
            return Err(match similar {
                Some((name, _)) => format!("the unit is written \"{name}\": \"{digits}{name}\""),
                None => format!(
                    "the unit is one of {}, such as \"{}\"",
                    self.names(),
                    self.example
                ),
            });
        };
        let value = number * worth;
        if self.whole && value.fract() != 0.0 {
            let counted = self.units.first().map_or("", |&(name, _)| name);
            return Err(format!(
                "write whole {counted}, such as \"{}\"",
                self.example
            ));
        }
        Ok(value)
    }

    /// A regular expression that what is read matches.
    pub(crate) fn pattern(&self) -> String {
        let names: Vec<&str> = self.units.iter().map(|&(name, _)| name).collect();
        format!(r"^\s*[0-9]+(\.[0-9]*)?\s*({})\s*$", names.join("|"))
    }
}

impl Price {
    /// An amount, in nano-dollars exactly as written.
    pub(crate) fn read(&self, text: &str) -> Result<Money, String> {
        let right = || format!("write it as \"{}\"", self.example);
        let Some(rest) = text.trim().strip_prefix('$') else {
            return Err(format!("the currency is missing: {}", right()));
        };
        let (digits, per) = split(rest);
        if !self.per.iter().any(|p| p.eq_ignore_ascii_case(per)) {
            let expected = self.per.first().copied().unwrap_or_default();
            return Err(match (expected, per) {
                ("", _) => format!("this is an amount, not a price: {}", right()),
                (expected, "") => {
                    format!("what it is per is missing (\"{expected}\"): {}", right())
                }
                (expected, per) => {
                    format!(
                        "this price is per \"{expected}\", not \"{per}\": {}",
                        right()
                    )
                }
            });
        }
        digits.parse().map_err(|_| {
            format!(
                "the amount is not a number with at most nine decimals: {}",
                right()
            )
        })
    }

    /// A regular expression that what is read matches.
    pub(crate) fn pattern(&self) -> String {
        format!(
            r"^\s*\$[0-9]+(\.[0-9]{{0,9}})?\s*({})\s*$",
            self.per.join("|")
        )
    }
}

/// A span of time such as `90s`, `15m`, `1h30m`, `2d`.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(format!(
            "the unit is missing: s, m, h or d, such as \"{text}m\""
        ));
    }
    humantime::parse_duration(text).map_err(|_| {
        "write a span of time such as \"90s\", \"15m\", \"1h30m\" or \"2d\"".to_owned()
    })
}

/// A regular expression for spans of time.
pub(crate) const DURATION_PATTERN: &str = r"^\s*([0-9]+\s*[a-z]+\s*)+$";

/// A share such as `5%`, in parts per million.
pub(crate) fn percent(text: &str) -> Option<u32> {
    let digits = text.trim().strip_suffix('%')?.trim_end();
    let share = number(digits)?;
    (share <= 1000.0).then(|| (share * 10_000.0).round() as u32)
}

/// Two groups as one number: `8.9` is 890, `12.4` is 1240.
pub(crate) fn version(text: &str) -> Option<u32> {
    let (major, minor) = text.trim().split_once('.')?;
    let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
    if !digits(major) || !digits(minor) || major.len() > 3 || minor.len() > 2 {
        return None;
    }
    let hundredths: u32 = format!("{minor:0<2}").parse().ok()?;
    Some(major.parse::<u32>().ok()? * 100 + hundredths)
}

/// A driver's version, up to three groups as one number: `535.86.05` is 535086005.
pub(crate) fn driver(text: &str) -> Option<u32> {
    let mut groups = text.trim().split('.').map(|group| {
        let digits = (1..=3).contains(&group.len()) && group.bytes().all(|b| b.is_ascii_digit());
        digits.then(|| group.parse::<u32>().ok()).flatten()
    });
    let major = groups.next()??;
    let minor = groups.next().unwrap_or(Some(0))?;
    let patch = groups.next().unwrap_or(Some(0))?;
    groups
        .next()
        .is_none()
        .then_some(major * 1_000_000 + minor * 1000 + patch)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities() {
        for (unit, text, value) in [
            (&MEMORY, "24GB", Some(24_000.0)),
            (&MEMORY, "24 GB", Some(24_000.0)),
            (&MEMORY, "16GiB", Some(16_384.0)),
            (&MEMORY, "1.5TB", Some(1_500_000.0)),
            (&MEMORY, "24", None),
            (&MEMORY, "24gb", None),
            (&MEMORY, "GB", None),
            (&MEMORY, "-24GB", None),
            (&MEMORY, "1e3GB", None),
            (&MEMORY, "1.2.3GB", None),
            (&MEMORY, "24 G B", None),
            (&DISK, "40GB", Some(40.0)),
            (&DISK, "1.5TB", Some(1500.0)),
            (&DISK, "40.5GB", None),
            (&TRAFFIC, "500MB", Some(0.5)),
            (&NETWORK, "500Mbit/s", Some(500.0)),
            (&NETWORK, "1Gbit/s", Some(1000.0)),
            (&NETWORK, "2.5Gbps", Some(2500.0)),
            (&NETWORK, "100MB/s", None),
            (&DISK_SPEED, "2GB/s", Some(2000.0)),
            (&BUS_SPEED, "50GB/s", Some(50.0)),
        ] {
            assert_eq!(unit.read(text).ok(), value, "{text}");
        }
        assert!(MEMORY.read("24gb").unwrap_err().contains("\"24GB\""));
        assert!(MEMORY.read("24").unwrap_err().contains("unit is missing"));
    }

    #[test]
    fn prices() {
        for (price, text, nanos) in [
            (&DOLLARS, "$25", Some(25_000_000_000)),
            (&DOLLARS, "$0.5", Some(500_000_000)),
            (&DOLLARS, "25", None),
            (&DOLLARS, "$25/hour", None),
            (&DOLLARS, "$", None),
            (&DOLLARS, "$-1", None),
            (&DOLLARS, "$1,000", None),
            (&DOLLARS, "25 USD", None),
            (&PER_GPU_HOUR, "$0.45/gpu-hour", Some(450_000_000)),
            (&PER_GPU_HOUR, "$0.45 /GPU-hour", Some(450_000_000)),
            (&PER_GPU_HOUR, "$0.45", None),
            (&PER_GPU_HOUR, "$0.45/hour", None),
            (&PER_HOUR, "$2/h", Some(2_000_000_000)),
            (&PER_GB, "$0.01/GB", Some(10_000_000)),
            (&PER_GB_MONTH, "$0.30/GB-month", Some(300_000_000)),
            (&PER_GB_MONTH, "$0.0000000001/GB-month", None),
        ] {
            assert_eq!(price.read(text).ok(), nanos.map(Money), "{text}");
        }
        assert!(
            PER_GPU_HOUR
                .read("$0.45")
                .unwrap_err()
                .contains("/gpu-hour")
        );
    }

    #[test]
    fn times_shares_and_versions() {
        assert_eq!(duration("1h30m"), Ok(Duration::from_mins(90)));
        assert_eq!(duration("2d"), Ok(Duration::from_hours(48)));
        for bad in [
            "",
            "15",
            "1.5",
            "m",
            "-5m",
            "5 parsecs",
            "99999999999999999999h",
        ] {
            assert!(duration(bad).is_err(), "{bad}");
        }
        assert_eq!(percent("5%"), Some(50_000));
        assert_eq!(percent("0.5 %"), Some(5000));
        assert_eq!(percent("5"), None);
        assert_eq!(percent("-5%"), None);
        assert_eq!(version("8.9"), Some(890));
        assert_eq!(version("12.4"), Some(1240));
        assert_eq!(version("12.04"), Some(1204));
        assert_eq!(version("12"), None);
        assert_eq!(version("12.4.1"), None);
        assert_eq!(driver("535.86.05"), Some(535_086_005));
        assert_eq!(driver("550"), Some(550_000_000));
        assert_eq!(driver("535.86.05.1"), None);
        assert_eq!(driver("r535"), None);
    }
}
