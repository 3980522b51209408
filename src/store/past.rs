//! The market as it was recorded in a time, read at once.

use std::collections::BTreeMap;

use rusqlite::params;

use crate::ports::StoreError;
use crate::types::offer::Coverage;
use crate::types::past::{Listed, Look, Past};
use crate::types::time::Time;

use super::error::json_at;
use super::offer_rows::{Names, SPEC_COLUMNS, VERSION_COLUMNS, offer_at};
use super::reader::Reader;

impl Reader {
    /// What was recorded from one moment up to, but not with, another, of slots with so many GPUs.
    ///
    /// # Errors
    /// What SQLite may say, or a record that cannot be read.
    pub fn past(&self, (from, to): (Time, Time), gpus: u32) -> Result<Past, StoreError> {
        let moment = self.connection.unchecked_transaction()?;
        let (numbers, mut past) = self.looks(from, to)?;
        if let (Some(first), Some(last)) = (numbers.first(), numbers.last()) {
            let sql = format!(
                "SELECT v.from_snapshot, v.to_snapshot, {VERSION_COLUMNS}, {SPEC_COLUMNS}
                 FROM offer_specs s JOIN offer_versions v ON v.spec = s.id
                 WHERE s.gpus = ?1 AND v.from_snapshot <= ?3
                   AND (v.to_snapshot IS NULL OR v.to_snapshot > ?2)
                 ORDER BY v.id"
            );
            let mut statement = moment.prepare(&sql)?;
            let mut rows = statement.query(params![gpus, first, last])?;
            let mut names = Names::default();
            let place = |number: i64| numbers.partition_point(|known| *known < number);
            while let Some(row) = rows.next()? {
                let to: Option<i64> = row.get(1)?;
                let (from, to) = (place(row.get(0)?), to.map_or(numbers.len(), place));
                if from < to {
                    let offer = offer_at(row, 2, &mut names)?;
                    past.rows.push(Listed { from, to, offer });
                }
            }
        }
        moment.finish()?;
        Ok(past)
    }

    /// When the market was looked at first and last, as far as that is kept; `None`: never.
    ///
    /// # Errors
    /// What SQLite may say.
    pub fn recorded(&self) -> Result<Option<(Time, Time)>, StoreError> {
        let sql = "SELECT MIN(at), MAX(at) FROM snapshots";
        let found = self.rows(sql, &[], |row| {
            let (first, last): (Option<i64>, Option<i64>) = (row.get(0)?, row.get(1)?);
            Ok(first.zip(last))
        })?;
        let found = found.into_iter().flatten().next();
        Ok(found.map(|(first, last)| (Time(first), Time(last))))
    }

    /// The looks, with the numbers of their snapshots, and what was asked at them.
    fn looks(&self, from: Time, to: Time) -> Result<(Vec<i64>, Past), StoreError> {
        let sql = "SELECT id, at, coverage FROM snapshots WHERE at >= ?1 AND at < ?2 ORDER BY id";
        let rows: Vec<(i64, Time, i64)> = self.rows(sql, &[&from.0, &to.0], |row| {
            Ok((row.get(0)?, Time(row.get(1)?), row.get(2)?))
        })?;
        let mut past = Past::default();
        let mut places: BTreeMap<i64, usize> = BTreeMap::new();
        let mut numbers = Vec::with_capacity(rows.len());
        for (number, at, asked) in rows {
            let coverage = if let Some(&place) = places.get(&asked) {
                place
            } else {
                let sql = "SELECT record FROM coverages WHERE id = ?1";
                let read = self.rows(sql, &[&asked], |row| json_at::<Vec<Coverage>>(row, 0))?;
                past.coverages.push(read.into_iter().flatten().collect());
                places.insert(asked, past.coverages.len() - 1);
                past.coverages.len() - 1
            };
            numbers.push(number);
            past.looks.push(Look { at, coverage });
        }
        Ok((numbers, past))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::eligible::samples::offer;
    use crate::ports::Store;
    use crate::store::SqliteStore;
    use crate::types::offer::{Extent, Market, Offer, OfferQuery, Snapshot};

    #[test]
    fn rows_are_of_the_looks_that_saw_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("haggle.db");
        let mut store = SqliteStore::open(&path, None, 1).unwrap();
        let asked = |model: &str| Coverage {
            query: OfferQuery {
                gpu_name: Some(model.to_owned()),
                ..OfferQuery::all(Market::OnDemand)
            },
            extent: Extent::Complete,
            malformed: 0,
        };
        let two = Offer {
            gpus: 2,
            ..offer(3)
        };
        let dearer = Offer {
            floor: Some(crate::types::money::Rate(7)),
            ..offer(1)
        };
        let looks = [
            (10, vec![offer(1)], "a"),
            (20, vec![offer(1), two], "a"),
            (30, vec![dearer.clone()], "b"),
            (40, vec![dearer, offer(2)], "a"),
            (50, vec![], "a"),
        ];
        assert_eq!(Reader::open(&path).unwrap().recorded().unwrap(), None);
        for (at, mut offers, model) in looks {
            offers.sort_by_key(|offer| (offer.slot(), offer.id));
            let coverage = vec![asked(model)];
            let at = Time(at);
            store
                .snapshot(&Snapshot {
                    at,
                    offers,
                    coverage,
                })
                .unwrap();
        }
        let reader = Reader::open(&path).unwrap();
        assert_eq!(reader.recorded().unwrap(), Some((Time(10), Time(50))));
        let past = reader.past((Time(20), Time(50)), 1).unwrap();
        let at: Vec<i64> = past.looks.iter().map(|look| look.at.0).collect();
        assert_eq!(at, [20, 30, 40]);
        let model = |look: usize| {
            let asked = &past.coverages[past.looks[look].coverage];
            asked[0].query.gpu_name.clone().unwrap()
        };
        assert_eq!(
            (model(0), model(1), model(2)),
            ("a".into(), "b".into(), "a".into())
        );
        let rows = past
            .rows
            .iter()
            .map(|row| (row.from, row.to, row.offer.machine.0));
        let mut rows: Vec<_> = rows.collect();
        rows.sort_unstable();
        assert_eq!(rows, [(0, 1, 1), (1, 3, 1), (2, 3, 2)]);
        assert_eq!(reader.past((Time(0), Time(100)), 2).unwrap().rows.len(), 1);
        assert_eq!(
            reader.past((Time(60), Time(100)), 1).unwrap(),
            Past::default()
        );
    }
}
