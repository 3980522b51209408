//! Any operation of the table, as a person asks for it.

use super::LowCode;
use super::mutate::Sent;
use super::routes::Form;
use super::wire::Answer;
use crate::marketplace::by_hand::{self, ByHand};
use crate::marketplace::operation::{Operation, Prepared};

impl LowCode {
    /// Runs an operation: a change once, in a form of URL that is known to be right, as the typed
    /// operations do.
    pub async fn by_hand(&self, operation: Operation, prepared: &Prepared) -> ByHand {
        let id = prepared.ids.first().map(|(_, id)| id);
        let query = &prepared.query;
        if operation.changes() {
            let body = by_hand::body(prepared);
            let sent = match id {
                Some(id) => self.mutate_by_id(operation, id, query, body).await,
                None => {
                    self.send_mutation(operation, None, Form::New, query, body)
                        .await
                }
            };
            return match sent {
                Sent::Answered(answer) => by_hand::judge(operation, &answer, None, &self.redactor),
                Sent::Refused(why, message) => ByHand::Refused {
                    why,
                    message,
                    leftover: None,
                },
                Sent::Unknown(message) => ByHand::Unknown(message),
            };
        }
        let answer = match id {
            Some(id) => self.read_by_id(operation, id, query).await,
            None => self
                .read_plain(operation, query)
                .await
                .map(|reply| Answer::read(&reply)),
        };
        match answer {
            Ok(answer) => by_hand::judge(operation, &answer, None, &self.redactor),
            Err(error) => ByHand::Failed(error),
        }
    }

    /// Whether the gateway's description surely lacks an operation.
    pub fn lacks(&self, operation: Operation) -> bool {
        self.routes.lacks(operation)
    }
}
