//! E-mail by SMTP.

use async_trait::async_trait;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::Credentials;
use lettre::transport::smtp::client::{Tls, TlsParameters};
use lettre::{AsyncSmtpTransport, AsyncTransport, Tokio1Executor};
use secrecy::{ExposeSecret, SecretString};

use super::TIMEOUT;
use crate::net::{install_crypto, root_cause};
use crate::notify::{Message, Sender, Unsent, severity_word};
use crate::types::telling::{Mail, MailTls};

/// A mail server, and who writes to whom.
pub struct Email {
    server: AsyncSmtpTransport<Tokio1Executor>,
    from: Mailbox,
    to: Vec<Mailbox>,
}

impl std::fmt::Debug for Email {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Email").finish_non_exhaustive()
    }
}

impl Email {
    /// Over a mail server, with the password where somebody logs in.
    ///
    /// # Errors
    /// Says which address, or what of the connection, cannot be used.
    pub fn new(mail: &Mail, password: Option<SecretString>) -> Result<Self, String> {
        install_crypto();
        let mailbox = |text: &String| {
            let read = text.parse::<Mailbox>();
            read.map_err(|_| format!("{text:?} is not an address such as me@example.org"))
        };
        let tls = || {
            TlsParameters::new(mail.host.clone())
                .map_err(|error| format!("TLS cannot be set up: {}", root_cause(&error)))
        };
        let tls = match mail.tls {
            MailTls::StartTls => Tls::Required(tls()?),
            MailTls::Tls => Tls::Wrapper(tls()?),
            MailTls::Off => Tls::None,
        };
        let mut server = AsyncSmtpTransport::<Tokio1Executor>::builder_dangerous(&mail.host)
            .port(mail.port)
            .tls(tls)
            .timeout(Some(TIMEOUT));
        if let (Some((user, _)), Some(password)) = (&mail.login, password) {
            let password = password.expose_secret().to_owned();
            server = server.credentials(Credentials::new(user.clone(), password));
        }
        Ok(Self {
            server: server.build(),
            from: mailbox(&mail.from)?,
            to: mail.to.iter().map(mailbox).collect::<Result<_, _>>()?,
        })
    }

    fn letter(&self, message: &Message) -> Result<lettre::Message, String> {
        let mut letter = lettre::Message::builder()
            .from(self.from.clone())
            .subject(format!("[haggle] {}", message.title))
            .header(ContentType::TEXT_PLAIN);
        for to in &self.to {
            letter = letter.to(to.clone());
        }
        let text = format!(
            "{}\n\n-- \n{} ({}), {}\n",
            message.text,
            message.kind,
            severity_word(message.severity),
            message.at
        );
        letter.body(text).map_err(|error| root_cause(&error))
    }
}

#[async_trait]
impl Sender for Email {
    async fn send(&self, message: &Message) -> Result<(), Unsent> {
        let letter = self.letter(message).map_err(Unsent::for_good)?;
        match self.server.send(letter).await {
            Ok(_) => Ok(()),
            Err(error) => {
                let why = root_cause(&error);
                // A server that says 5xx says the same tomorrow.
                Err(if error.is_permanent() {
                    Unsent::for_good(why)
                } else {
                    Unsent::for_now(why)
                })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::state::Severity;
    use crate::types::time::Time;

    fn mail() -> Mail {
        Mail {
            host: "127.0.0.1".to_owned(),
            port: 25,
            tls: MailTls::Off,
            login: None,
            from: "haggle <haggle@example.org>".to_owned(),
            to: vec!["me@example.org".to_owned()],
        }
    }

    #[test]
    fn a_subject_adds_no_header() {
        let email = Email::new(&mail(), None).unwrap();
        let title = "train\r\nBcc: all@example.org\r\n\r\nhello";
        let message = Message::new(
            "k".to_owned(),
            Time(0),
            "failed",
            Severity::Alarm,
            title,
            ".\r\nRCPT TO:<x@example.org>",
        );
        // Also where the title was not made plain: then it is encoded.
        for (title, shown) in [
            (message.title.clone(), "Subject: [haggle] train"),
            (title.to_owned(), "Subject: [haggle] =?utf-8?b?"),
        ] {
            let message = Message {
                title,
                ..message.clone()
            };
            let letter = email.letter(&message).unwrap();
            assert_eq!(letter.envelope().to().len(), 1);
            let text = String::from_utf8(letter.formatted()).unwrap();
            let (head, _) = text.split_once("\r\n\r\n").unwrap();
            assert!(!head.lines().any(|line| line.starts_with("Bcc")), "{head}");
            assert!(head.contains(shown), "{head}");
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        let mut wrong = mail();
        wrong.to.push("nobody".to_owned());
        let said = Email::new(&wrong, None).unwrap_err();
        assert!(
            said.contains("\"nobody\"") && said.contains("me@example.org"),
            "{said}"
        );
    }
}
