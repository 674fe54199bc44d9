//! `search`: one query to a running service.

use std::io::Read;
use std::process::ExitCode;

use clap::{ArgGroup, Args};
use serde_json::Value;
use sluice_query_svc::types::{AnswerStatus, Include, SearchRequest, SearchResponse};

use super::CliError;
use super::client::{ServiceArgs, ServiceClient, segment};
use super::options::Common;
use super::output::{Output, table};

const EXAMPLES: &str = "\
Examples:
  sluice search packages --id nginx
  sluice search packages --id nginx --filter '{\"section\": \"httpd\"}' -k 5
  sluice search packages --vector '[0.12, -0.5, ...]' --exact
  cat vector.json | sluice search packages --vector -";

/// Longest metadata that a table shows.
const SHOWN: usize = 100;
/// Longest vector that is read.
const MAX_VECTOR_BYTES: u64 = 1 << 20;

#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
#[command(group(ArgGroup::new("what").required(true).args(["id", "vector"])))]
pub struct SearchArgs {
    /// The index to search
    index: String,
    /// Find what is like the record of this id
    #[arg(long)]
    id: Option<String>,
    /// Find what is near this vector: a JSON array, @FILE, or - for standard input
    #[arg(long, value_name = "JSON", allow_hyphen_values = true)]
    vector: Option<String>,
    /// How many hits
    #[arg(short, default_value_t = 10)]
    k: usize,
    /// Only records that match, e.g. '{"section": "web"}'
    #[arg(long, value_name = "JSON")]
    filter: Option<String>,
    /// Candidates kept while graphs are searched: more finds more and takes longer
    #[arg(long)]
    ef: Option<usize>,
    /// Compare with every record instead of walking graphs
    #[arg(long)]
    exact: bool,
    /// Worst score of a hit (cosine, dot)
    #[arg(long, allow_hyphen_values = true)]
    min_score: Option<f32>,
    /// Worst distance of a hit (l2)
    #[arg(long)]
    max_distance: Option<f32>,
    /// Fail rather than answer without some partition
    #[arg(long)]
    require_complete: bool,
    /// Return vectors too
    #[arg(long)]
    with_vectors: bool,
    #[command(flatten)]
    service: ServiceArgs,
}

pub(super) async fn run(common: &Common, args: SearchArgs, out: Output) -> Result<ExitCode, CliError> {
    let client = ServiceClient::new(common, &args.service)?;
    let index = args.index.clone();
    let path = format!("/v1/indexes/{}/search", segment(&index));
    let answer: SearchResponse =
        client.post(&path, &request(args)?).await.map_err(|e| e.about_index(&index))?;
    out.print(&answer, render)?;
    Ok(ExitCode::SUCCESS)
}

fn request(args: SearchArgs) -> Result<SearchRequest, CliError> {
    let vector = args.vector.as_deref().map(read_vector).transpose()?;
    let filter = args.filter.as_deref().map(|text| {
        serde_json::from_str::<Value>(text).map_err(|e| CliError::Usage(format!("--filter is not JSON: {e}")))
    });
    let include = args.with_vectors.then(|| vec![Include::Metadata, Include::Vector]);
    Ok(SearchRequest {
        vector,
        id: args.id,
        k: args.k,
        filter: filter.transpose()?,
        ef: args.ef,
        exact: args.exact,
        min_score: args.min_score,
        max_distance: args.max_distance,
        include,
        require_complete: args.require_complete,
        consistency: None,
    })
}

fn read_vector(given: &str) -> Result<Vec<f32>, CliError> {
    let refuse = |e: &dyn std::fmt::Display| CliError::Usage(format!("--vector: {e}"));
    let mut text = String::new();
    match (given, given.strip_prefix('@')) {
        ("-", _) => {
            std::io::stdin().take(MAX_VECTOR_BYTES).read_to_string(&mut text).map_err(|e| refuse(&e))?;
        }
        (_, Some(path)) => {
            let file = std::fs::File::open(path).map_err(|e| refuse(&format!("{path}: {e}")))?;
            file.take(MAX_VECTOR_BYTES).read_to_string(&mut text).map_err(|e| refuse(&e))?;
        }
        _ => given.clone_into(&mut text),
    }
    serde_json::from_str(&text).map_err(|e| refuse(&format!("not a JSON array of numbers: {e}")))
}

fn render(answer: &SearchResponse) -> String {
    let row = |(i, hit): (usize, &sluice_query_svc::types::Hit)| {
        let metadata = hit.metadata.as_ref().map_or("", |m| m.get());
        let shown: String = metadata.chars().take(SHOWN).collect();
        let cut = if shown.len() < metadata.len() { ".." } else { "" };
        vec![(i + 1).to_string(), format!("{:.4}", hit.score), hit.id.clone(), format!("{shown}{cut}")]
    };
    let rows: Vec<_> = answer.hits.iter().enumerate().map(row).collect();
    let mut text = table(&["#", "score", "id", "metadata"], &rows);
    let missing: Vec<_> = answer.partitions.iter().filter(|p| p.status != AnswerStatus::Ok).collect();
    for partition in &missing {
        text.push_str(&format!("\nwithout partition {}: {:?}", partition.partition, partition.status));
    }
    text.push_str(&format!("\n{} hits in {:.1} ms", answer.hits.len(), answer.took_ms));
    text
}
