//! How a command reaches the cluster: kubectl's flags and files.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::ValueEnum;
use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::cluster::Cluster;

/// Flags of every command that talks to a cluster.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Connection {
    /// Kubeconfig file; the in-cluster account or kubectl's usual places when absent
    #[arg(long, env = "KUBECONFIG", value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, value_name = "NAME")]
    pub context: Option<String>,
    /// Namespace; that of the context when absent
    #[arg(short, long, value_name = "NAMESPACE")]
    pub namespace: Option<String>,
}

/// How results are printed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// One JSON document.
    Json,
    /// One YAML document.
    Yaml,
}

impl Connection {
    /// The cluster and the namespace to work in.
    ///
    /// # Errors
    /// When no kubeconfig can be read, or names no such context.
    pub async fn open(&self) -> anyhow::Result<(Cluster, String)> {
        let config = self.config().await?;
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let client = kube::Client::try_from(config).context("kubernetes client")?;
        Ok((Cluster::new(client), namespace))
    }

    async fn config(&self) -> anyhow::Result<kube::Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..Default::default() };
        if let Some(file) = &self.kubeconfig {
            let read = Kubeconfig::read_from(file)
                .with_context(|| format!("kubeconfig {}: cannot be read", file.display()))?;
            return kube::Config::from_custom_kubeconfig(read, &options)
                .await
                .with_context(|| format!("kubeconfig {}", file.display()));
        }
        if self.context.is_some() {
            return kube::Config::from_kubeconfig(&options).await.context("kubeconfig");
        }
        kube::Config::infer()
            .await
            .context("no cluster is configured; give --kubeconfig, or run `pgitops sandbox`")
    }
}

/// Prints a value as JSON or YAML. Text is the command's own affair.
///
/// # Errors
/// When the value cannot be serialised or standard output is closed.
pub fn print<T: serde::Serialize>(value: &T, output: Output) -> anyhow::Result<()> {
    use std::io::Write as _;
    let text = match output {
        Output::Yaml => serde_saphyr::to_string(value).context("result cannot be written")?,
        Output::Json | Output::Text => {
            serde_json::to_string_pretty(value).context("result cannot be written")? + "\n"
        }
    };
    std::io::stdout().lock().write_all(text.as_bytes()).context("standard output")
}
