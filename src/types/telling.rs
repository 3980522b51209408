//! What people can be told of, and on which ways: the words of `[[notify]]`.

use std::collections::BTreeSet;
use std::time::Duration;

use chrono::NaiveTime;

use super::job::SecretRef;
use super::state::Severity;

/// A kind of news. Most are kinds of events, as they stand in the database and in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// The word in the configuration and in messages. An event whose kind is longer by `-…`, such as
    /// `limit-near-job-total-train`, is of it too.
    pub word: &'static str,
    /// Whether it is told where the configuration names no kinds.
    pub usual: bool,
    /// What stands for long is told again after [`AGAIN_AFTER`], or when it was over and is back; what
    /// happens is told each time.
    pub stands: bool,
    /// Of what stands: each tick shows whether it still does. Of the others only that it is told of
    /// again and again shows it.
    pub shown: bool,
    /// What it means.
    pub meaning: &'static str,
}

/// What stands is told again after so long, also where the daemon began anew meanwhile.
pub const AGAIN_AFTER: Duration = Duration::from_hours(12);

const fn happens(word: &'static str, usual: bool, meaning: &'static str) -> Kind {
    Kind {
        word,
        usual,
        stands: false,
        shown: false,
        meaning,
    }
}

const fn stands(word: &'static str, usual: bool, meaning: &'static str) -> Kind {
    Kind {
        word,
        usual,
        stands: true,
        shown: false,
        meaning,
    }
}

const fn shown(word: &'static str, usual: bool, meaning: &'static str) -> Kind {
    Kind {
        shown: true,
        ..stands(word, usual, meaning)
    }
}

/// Outbid for long.
pub const OUTBID_LONG: &str = "outbid-long";
/// A limit is used to nine tenths.
pub const LIMIT_USED: &str = "limit-used";
/// An instance of ours that is in no record.
pub const ORPHAN: &str = "orphan";
/// The credit lasts for a few hours only.
pub const CREDIT_LOW: &str = "credit-low";
/// A rental ends soon.
pub const RENTAL_ENDING: &str = "rental-ending";
/// All replicas of a job ended.
pub const JOB_ENDED: &str = "job-ended";
/// The daemon has ended.
pub const DAEMON_ENDED: &str = "daemon-ended";
/// The database cannot be written.
pub const STORE_FAILED: &str = "store-failed";
/// What a day came to.
pub const SUMMARY: &str = "summary";
/// A message of `haggle notify test`.
pub const TEST: &str = "test";

/// Every kind. What no other fits is `other`.
pub const KINDS: &[Kind] = &[
    // Made for messages.
    shown(
        OUTBID_LONG,
        true,
        "A replica has been outbid for half an hour",
    ),
    happens(
        LIMIT_USED,
        true,
        "A limit in dollars is used to 90 %, once a day, a month, or a budget, and anew where the limit is changed",
    ),
    shown(
        ORPHAN,
        true,
        "An instance with our label has been in no record for a quarter of an hour",
    ),
    shown(
        CREDIT_LOW,
        true,
        "The credit less its reserve, or the least runway, lasts for six hours only, or is used up",
    ),
    shown(RENTAL_ENDING, true, "A rental ends within a day"),
    happens(
        JOB_ENDED,
        true,
        "Every replica of a job is finished or has failed for good",
    ),
    happens(
        SUMMARY,
        true,
        "At midnight of `timezone`: what the day cost, what runs, what is left",
    ),
    happens(
        DAEMON_ENDED,
        true,
        "`haggle run` has ended: an alarm, where nobody asked it to",
    ),
    happens(TEST, true, "A message of `haggle notify test`"),
    // Limits and the bill.
    shown(
        "limit-near",
        true,
        "A limit is reached within six hours at the present burn",
    ),
    shown(
        "limit",
        true,
        "A limit is reached, and something is parked or destroyed for it",
    ),
    stands(
        "billed-overrun",
        true,
        "The bill is higher than a limit allowed",
    ),
    stands(
        "billing-drift",
        true,
        "A day's bill is not as it was reckoned",
    ),
    stands("unknown-charges", true, "The bill has what no record knows"),
    stands(
        "account-refused",
        true,
        "The marketplace refused to rent to the account",
    ),
    happens(
        "charges-before",
        false,
        "The bill has instances that ended before the database was made",
    ),
    shown(
        "idle-billing",
        true,
        "An instance stands still and is billed",
    ),
    happens("refund", false, "The bill gives something back"),
    // Instances and their hosts.
    happens("running", false, "An instance runs for the first time"),
    happens("resumed", false, "An instance runs again"),
    happens("outbid", false, "A rival took an instance's GPUs"),
    happens("stopped", false, "An instance stopped as asked"),
    happens(
        "stopped-by-others",
        true,
        "An instance was stopped by somebody else",
    ),
    happens(
        "parked-by-others",
        true,
        "An instance was parked by the guard or by somebody else",
    ),
    happens("rental-ended", true, "A rental ended"),
    happens("destroyed", false, "An instance was destroyed"),
    stands("destroy-stuck", true, "A destroy does not take"),
    happens("lost", true, "An instance is gone without our doing"),
    shown("host-lost", true, "A host is given up"),
    happens("offline", false, "A host is not heard from"),
    stands("price-increase", true, "A host asks for more"),
    happens(
        "adopted",
        true,
        "An instance with our label that was in no record was taken over",
    ),
    happens(
        "settled",
        false,
        "An instance showed whose creation was in doubt",
    ),
    happens(
        "rented-elsewhere",
        true,
        "What was made is not where it was asked for",
    ),
    happens(
        "not-as-asked",
        true,
        "What was made is not what was asked for, and is destroyed",
    ),
    shown("disk-kept", false, "A disk is kept that has work on it"),
    shown(
        "too-many-disks",
        true,
        "A replica has too many disks with work on them",
    ),
    shown(
        "drained",
        true,
        "No policy asks any more for what is rented",
    ),
    // Work.
    shown(
        "deadline",
        true,
        "A deadline is at risk, cannot be kept, or was missed",
    ),
    happens("finished", false, "A replica is finished"),
    happens("failed", true, "A replica failed"),
    happens("work-lost", false, "Work was lost"),
    shown("gpu-idle", true, "GPUs are hardly used"),
    happens("machine-refused", false, "A runner found its machine unfit"),
    stands(
        "machines-unfit",
        true,
        "Several machines in a row were unfit",
    ),
    happens("machine-broken", false, "A GPU broke under a command"),
    happens("start-failed", false, "A start came to nothing"),
    stands("cannot-start", true, "Starts come to nothing everywhere"),
    stands(
        "array-held-back",
        true,
        "No element of an array is begun: too many failed",
    ),
    happens("array-ended", true, "An array ended"),
    stands(
        "checkpoint-unreadable",
        true,
        "A checkpoint is not what it should be",
    ),
    stands(
        "outputs-here",
        true,
        "Outputs are on an instance's disk alone",
    ),
    happens("brought", false, "A checkpoint came over from another disk"),
    happens(
        "brought-unknown",
        true,
        "A job goes on with another checkpoint than the last that was heard of",
    ),
    happens("not-brought", true, "A checkpoint did not come over"),
    happens(
        "work-unheard",
        true,
        "Work is done again, for its checkpoint was never heard of",
    ),
    shown(
        "copy-unaffordable",
        true,
        "A limit has no room for the copy of a checkpoint",
    ),
    shown(
        "source-away",
        true,
        "The host of the disk with the last checkpoint is not heard from",
    ),
    stands("storage-failed", true, "A job's storage does not work"),
    happens(
        "inputs-uploading",
        false,
        "What a job needs is brought to its storage",
    ),
    stands(
        "inputs-not-ready",
        true,
        "A job waits because its inputs are not ready",
    ),
    happens(
        "input-refused",
        false,
        "A machine cannot give a job what it needs",
    ),
    happens(
        "input-changed",
        true,
        "A replica begins anew, for an input is another one than when it was rented",
    ),
    shown(
        "secrets-withheld",
        true,
        "A job waits because its secrets may not be sent",
    ),
    shown(
        "runner-unheard",
        true,
        "A supervised job waits because its runner could not be heard",
    ),
    shown(
        "secret-unread",
        true,
        "A job waits because a secret of it cannot be read",
    ),
    happens("not-sendable", true, "A rent could not be sent"),
    // The database.
    happens(
        STORE_FAILED,
        true,
        "The database cannot be written, and nothing is sent; and when it could again",
    ),
    happens(
        "database-older",
        true,
        "The database may have forgotten something",
    ),
    happens(
        "database-compared",
        true,
        "The database was compared with the account",
    ),
    // What the marketplace tells by itself.
    happens(
        "told",
        false,
        "The marketplace's own notifications, as they came",
    ),
    happens(
        "other",
        true,
        "Whatever else is told at the severity of a warning or an alarm",
    ),
];

/// The kind of an event: the longest word that its own is or begins with.
pub fn kind_of(event: &str) -> &'static Kind {
    // How long the credit lasts is a limit to the engine, and to people a matter of its own.
    let event = match event {
        "limit-near-credit" | "limit-near-runway" => CREDIT_LOW,
        event => event,
    };
    let fits = |kind: &&Kind| {
        let rest = event.strip_prefix(kind.word);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    KINDS
        .iter()
        .filter(fits)
        .max_by_key(|kind| kind.word.len())
        .unwrap_or(&KINDS[KINDS.len() - 1])
}

/// A time of day in which nothing but alarms is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quiet {
    /// It begins.
    pub from: NaiveTime,
    /// It ends; where that is earlier, on the next day.
    pub to: NaiveTime,
}

impl Quiet {
    /// Whether a time of day is in it.
    pub fn holds(&self, at: NaiveTime) -> bool {
        if self.from <= self.to {
            (self.from..self.to).contains(&at)
        } else {
            at >= self.from || at < self.to
        }
    }
}

/// How a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MailTls {
    /// After STARTTLS, which must succeed.
    StartTls,
    /// From the first byte.
    Tls,
    /// Not at all: to this machine only.
    Off,
}

/// A mail server and what is sent over it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mail {
    /// The server's name.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// How the connection is encrypted.
    pub tls: MailTls,
    /// Who logs in, with which password.
    pub login: Option<(String, SecretRef)>,
    /// The sender's address.
    pub from: String,
    /// The receivers' addresses.
    pub to: Vec<String>,
}

/// A way on which messages go out. An address to post to is a secret: whoever knows it can write there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A POST of JSON, signed.
    Webhook {
        /// Where to.
        url: SecretRef,
        /// With what it is signed.
        secret: SecretRef,
    },
    /// An incoming webhook of Slack, or of what understands the same.
    Slack {
        /// Where to.
        url: SecretRef,
    },
    /// A webhook of Discord.
    Discord {
        /// Where to.
        url: SecretRef,
    },
    /// A topic of an ntfy server.
    Ntfy {
        /// The topic's address.
        url: SecretRef,
        /// An access token.
        token: Option<SecretRef>,
    },
    /// E-mail.
    Email(Mail),
    /// A command, run by the shell.
    Command {
        /// The line.
        line: String,
    },
}

impl Way {
    /// The word in the configuration.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Webhook { .. } => "webhook",
            Self::Slack { .. } => "slack",
            Self::Discord { .. } => "discord",
            Self::Ntfy { .. } => "ntfy",
            Self::Email(_) => "email",
            Self::Command { .. } => "command",
        }
    }

    /// The places of its secrets.
    pub fn secrets(&self) -> Vec<&SecretRef> {
        match self {
            Self::Webhook { url, secret } => vec![url, secret],
            Self::Slack { url } | Self::Discord { url } => vec![url],
            Self::Ntfy { url, token } => {
                [Some(url), token.as_ref()].into_iter().flatten().collect()
            }
            Self::Email(mail) => mail.login.iter().map(|(_, password)| password).collect(),
            Self::Command { .. } => Vec::new(),
        }
    }
}

/// One `[[notify]]` of the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channel {
    /// What it is called; no two are called the same.
    pub name: String,
    /// How it is reached.
    pub way: Way,
    /// Which kinds it is told of; `None`: the usual ones.
    pub events: Option<BTreeSet<&'static str>>,
    /// Nothing under this severity is told.
    pub least: Severity,
    /// Most messages in an hour; what is more goes out together later.
    pub per_hour: u32,
    /// When nothing but alarms is told.
    pub quiet: Option<Quiet>,
}

impl Channel {
    /// Whether it is to be told of news of a kind.
    pub fn wants(&self, kind: &Kind, severity: Severity) -> bool {
        // Whoever asks for a test wants to see it.
        if kind.word == TEST {
            return true;
        }
        let named = match &self.events {
            Some(events) => events.contains(kind.word),
            None if kind.word == "other" => severity >= Severity::Warning,
            None => kind.usual,
        };
        named && severity >= self.least
    }
}

/// A Markdown table of all kinds.
pub fn reference_table() -> String {
    let mut text = String::from("| word | usual | told again | meaning |\n|---|---|---|---|\n");
    for kind in KINDS {
        text.push_str(&format!(
            "| `{}` | {} | {} | {} |\n",
            kind.word,
            if kind.usual { "yes" } else { "" },
            if kind.stands {
                "after 12 h, or when it is back"
            } else {
                "each time"
            },
            kind.meaning
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_of_the_kind_that_says_most_of_it() {
        for (event, word) in [
            ("outbid", "outbid"),
            ("outbid-long", "outbid-long"),
            ("limit-near-job-total-train", "limit-near"),
            ("limit-near-credit", "credit-low"),
            ("limit-near-runway", "credit-low"),
            ("limit-job-total", "limit"),
            ("told-low-credit", "told"),
            ("stopped-by-others", "stopped-by-others"),
            ("inputs-not-ready-train", "inputs-not-ready"),
            ("inputs-uploading", "inputs-uploading"),
            ("limitless", "other"),
            ("", "other"),
        ] {
            assert_eq!(kind_of(event).word, word, "{event}");
        }
        let words: BTreeSet<&str> = KINDS.iter().map(|kind| kind.word).collect();
        assert_eq!(words.len(), KINDS.len());
    }

    #[test]
    fn the_night_goes_over_midnight() {
        let at = |hour| NaiveTime::from_hms_opt(hour, 0, 0).unwrap();
        let night = Quiet {
            from: at(22),
            to: at(7),
        };
        let noon = Quiet {
            from: at(12),
            to: at(13),
        };
        let held = |quiet: Quiet| (0..24).filter(move |&hour| quiet.holds(at(hour)));
        assert_eq!(
            held(night).collect::<Vec<_>>(),
            [0, 1, 2, 3, 4, 5, 6, 22, 23]
        );
        assert_eq!(held(noon).collect::<Vec<_>>(), [12]);
    }

    #[test]
    fn a_channel_is_told_what_it_asks_for() {
        let mut channel = Channel {
            name: "phone".to_owned(),
            way: Way::Command {
                line: "true".to_owned(),
            },
            events: None,
            least: Severity::Info,
            per_hour: 20,
            quiet: None,
        };
        let wants = |channel: &Channel, event, severity| channel.wants(kind_of(event), severity);
        assert!(wants(&channel, "failed", Severity::Alarm));
        assert!(!wants(&channel, "outbid", Severity::Info));
        assert!(wants(&channel, "something-new", Severity::Warning));
        assert!(!wants(&channel, "something-new", Severity::Info));
        channel.least = Severity::Alarm;
        assert!(!wants(&channel, "failed", Severity::Warning));
        assert!(wants(&channel, TEST, Severity::Info));
        channel.events = Some(["outbid"].into());
        channel.least = Severity::Info;
        assert!(wants(&channel, "outbid", Severity::Info));
        assert!(!wants(&channel, "failed", Severity::Alarm));
    }
}
