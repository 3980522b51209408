-- What people were told, by channel, so that a restart neither repeats nor forgets it: when, and, while
-- it is still to be sent, the message.
CREATE TABLE told (
    channel TEXT NOT NULL,
    key     TEXT NOT NULL,
    at      INTEGER NOT NULL,
    pending TEXT CHECK (json_valid(pending)),
    PRIMARY KEY (channel, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX told_pending ON told (channel, at) WHERE pending IS NOT NULL;
