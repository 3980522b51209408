//! The receipt as a page of its own: no script, nothing from elsewhere, light and dark, and fit to print.

use super::super::page::{dollars, escape, leaf, line, table};
use super::{HostDocument, JobDocument, PartDocument, ReceiptDocument};
use crate::types::time::Time;

/// A whole page of HTML.
pub(super) fn page(document: &ReceiptDocument, now: Time) -> String {
    let title = format!("haggle: receipt of {}", document.month);
    let mut body = format!(
        "<h1>Receipt of {}</h1>\n<p>Days and months in {}; written {now}.</p>\n",
        escape(&document.month),
        escape(&document.timezone),
    );
    body += &summary(document);
    body += &jobs(document);
    body += &parts("By owner", "owner", &document.owners);
    body += &parts("By tag", "tag", &document.tags);
    body += &parts("By component", "component", &document.components);
    body += &hosts(&document.hosts);
    leaf(&title, &body)
}

fn summary(document: &ReceiptDocument) -> String {
    let saved = dollars(&document.saved_dollars);
    format!(
        "<h2>In short</h2>\n\
         <p><strong>{}</strong> was paid: {} as billed, {} reckoned and not billed yet.</p>\n\
         <p>{:.2} useful GPU-hours, which would have cost {} on demand at the best rate then: {saved} saved. \
         {:.2} GPU-hours were lost.</p>\n\
         <p>{} was lost to hosts that failed.</p>\n",
        dollars(&document.spend_dollars),
        dollars(&document.billed_dollars),
        dollars(&document.not_billed_dollars),
        document.useful_gpu_hours,
        dollars(&document.on_demand_equivalent_dollars),
        document.lost_gpu_hours,
        dollars(&document.lost_to_hosts_dollars),
    )
}

fn jobs(document: &ReceiptDocument) -> String {
    let row = |job: &JobDocument| {
        let cells = [
            escape(&job.job),
            escape(job.owner.as_deref().unwrap_or("-")),
            escape(&job.tags.join(", ")).into_owned().into(),
        ];
        let amounts = [
            &job.spend_dollars,
            &job.billed_dollars,
            &job.not_billed_dollars,
        ];
        line(&cells, &amounts.map(|amount| dollars(amount)))
    };
    let rows: String = document.jobs.iter().map(row).collect();
    let total = [
        &document.spend_dollars,
        &document.billed_dollars,
        &document.not_billed_dollars,
    ];
    let total = line(
        &["total".into(), "".into(), "".into()],
        &total.map(|amount| dollars(amount)),
    );
    table(
        "By job",
        &["job", "owner", "tags"],
        &["paid", "billed", "not billed"],
        &rows,
        &total,
    )
}

fn parts(title: &str, name: &str, parts: &[PartDocument]) -> String {
    if parts.is_empty() {
        return String::new();
    }
    let row = |part: &PartDocument| {
        let amounts = [
            &part.spend_dollars,
            &part.billed_dollars,
            &part.not_billed_dollars,
        ];
        line(
            &[escape(&part.name)],
            &amounts.map(|amount| dollars(amount)),
        )
    };
    let rows: String = parts.iter().map(row).collect();
    table(title, &[name], &["paid", "billed", "not billed"], &rows, "")
}

fn hosts(hosts: &[HostDocument]) -> String {
    if hosts.is_empty() {
        return String::new();
    }
    let row = |host: &HostDocument| {
        let name = host
            .host
            .map_or_else(|| "unknown".to_owned(), |host| host.to_string());
        let amounts = [
            host.instances.to_string(),
            dollars(&host.failed_starts_dollars),
            dollars(&host.lost_work_dollars),
        ];
        line(&[name.into()], &amounts)
    };
    let rows: String = hosts.iter().map(row).collect();
    table(
        "Lost to hosts that failed",
        &["host"],
        &["instances", "never ran", "lost work"],
        &rows,
        "",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_people_and_hosts_wrote_is_text() {
        let part = |name: &str| PartDocument {
            name: name.to_owned(),
            spend_dollars: "1.5".to_owned(),
            billed_dollars: "1.25".to_owned(),
            not_billed_dollars: "0.25".to_owned(),
        };
        let document = ReceiptDocument {
            month: "2026-11".to_owned(),
            timezone: "UTC".to_owned(),
            spend_dollars: "1.5".to_owned(),
            billed_dollars: "1.25".to_owned(),
            not_billed_dollars: "0.25".to_owned(),
            useful_gpu_hours: 3.0,
            lost_gpu_hours: 0.5,
            on_demand_equivalent_dollars: "2.5".to_owned(),
            saved_dollars: "1".to_owned(),
            lost_to_hosts_dollars: "0.01".to_owned(),
            jobs: vec![JobDocument {
                job: "train".to_owned(),
                owner: Some("<script>alert(1)</script> & \"co\"".to_owned()),
                tags: vec!["a'b".to_owned()],
                spend_dollars: "1.5".to_owned(),
                billed_dollars: "1.25".to_owned(),
                not_billed_dollars: "0.25".to_owned(),
            }],
            owners: vec![part("<b>")],
            tags: Vec::new(),
            components: vec![part("gpu")],
            hosts: vec![HostDocument {
                host: None,
                instances: 2,
                failed_starts_dollars: "0.01".to_owned(),
                lost_work_dollars: "0".to_owned(),
            }],
        };
        let page = page(&document, Time(0));
        assert!(page.starts_with("<!DOCTYPE html>"));
        assert!(
            !page.contains("<script>") && !page.contains("<b>"),
            "{page}"
        );
        for part in [
            "&lt;script&gt;alert(1)&lt;/script&gt; &amp; &quot;co&quot;",
            "a&#39;b",
            "<td class=\"n\">$1.5000</td>",
            "<strong>$1.5000</strong> was paid: $1.2500 as billed, $0.2500 reckoned",
            "<td>unknown</td><td class=\"n\">2</td>",
        ] {
            assert!(page.contains(part), "{part} is not in {page}");
        }
        assert!(!page.contains("By tag"), "there are none");
        let opened = page.matches("<tr>").count();
        assert_eq!(opened, page.matches("</tr>").count());
    }
}
