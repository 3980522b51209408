//! How long it takes to read a large search's answer: 3,000 offers with some 70 fields each, about
//! 5 MB, in the gateway's envelope, to offers in our own terms.

mod support;

use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use haggle::marketplace::rows::{GpuNames, OfferRow, offer, search_rows};
use haggle::types::offer::{Market, Offer};

const OFFERS: u64 = 3000;

fn body() -> String {
    format!(
        r#"{{"message":"OK","provider":"vastai","result":{{"offers":[{}]}},"response_headers":{{}}}}"#,
        support::rows(OFFERS)
    )
}

fn read(body: &str, names: &mut GpuNames) -> Vec<Offer> {
    let found = search_rows(body).expect("the body is JSON");
    found
        .rows
        .iter()
        .map(|json| {
            let row = OfferRow::parse(json.get()).expect("a row");
            offer(&row, Market::OnDemand, names).expect("an offer")
        })
        .collect()
}

fn parse(c: &mut Criterion) {
    let body = body();
    let mut names = GpuNames::default();
    assert_eq!(read(&body, &mut names).len() as u64, OFFERS);
    let mut group = c.benchmark_group("parse");
    group.throughput(Throughput::Bytes(body.len() as u64));
    group.bench_function("3000 offers", |b| {
        b.iter(|| read(black_box(&body), &mut names));
    });
    group.bench_function("3000 offers, finding the rows", |b| {
        b.iter(|| search_rows(black_box(&body)).expect("JSON").rows.len());
    });
    group.finish();
}

criterion_group!(benches, parse);
criterion_main!(benches);
