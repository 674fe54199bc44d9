//! Reads the text of `/metrics` as a scraper would.

use super::api::Api;

/// One scrape.
pub(crate) struct Metrics(String);

impl Metrics {
    /// Asks the process behind `api`.
    pub(crate) async fn scrape(api: &Api) -> Self {
        let answer = api.get_root("/metrics").await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        Self(answer.text)
    }

    /// The sum over every series of `name` whose labels hold each of `labels`, such as `partition="3"`.
    pub(crate) fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name, labels).sum()
    }

    /// The largest of them; zero when there is none.
    pub(crate) fn max(&self, name: &str, labels: &[&str]) -> f64 {
        self.series(name, labels).fold(0.0, f64::max)
    }

    fn series<'a>(&'a self, name: &'a str, labels: &'a [&'a str]) -> impl Iterator<Item = f64> + 'a {
        let values = self.0.lines().filter_map(move |line| {
            let rest = line.strip_prefix(name)?;
            // the name as a whole, with or without labels
            if !rest.starts_with(['{', ' ']) {
                return None;
            }
            let (given, value) = rest.rsplit_once(' ')?;
            labels.iter().all(|label| given.contains(label)).then(|| value.parse::<f64>().ok())?
        });
        values.into_iter()
    }
}
