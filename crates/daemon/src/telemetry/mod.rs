//! OpenTelemetry export: spans of the API's requests go to a collector by OTLP over HTTP, as JSON.
//!
//! What is set is set by the variables of OpenTelemetry's specification, which all programs read: so what cannot be had
//! is a warning and no reason not to start. Nobody waits for the collector, and of a dead one nothing is kept but a
//! queue of bounded length.

mod encode;
mod export;
mod settings;

use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use wharf_server::trace::Tracer;

pub(crate) use settings::Settings;

/// The export under way.
pub(crate) struct Export {
    pub(crate) tracer: Tracer,
    task: JoinHandle<()>,
    stop: watch::Sender<()>,
}

impl Export {
    /// As the environment says; `None` when it says nothing, or what cannot be.
    pub(crate) fn of_environment() -> Option<Self> {
        let settings = match Settings::of(|name| std::env::var(name).ok()) {
            Ok(settings) => settings?,
            Err(error) => {
                tracing::warn!("traces are not exported: {error}");
                return None;
            }
        };
        let (sender, spans) = mpsc::channel(settings.queue);
        let tracer = Tracer::new(settings.sampler, sender);
        tracing::info!("traces are exported to {}", settings.endpoint);
        let (stop, stopped) = watch::channel(());
        let task = tokio::spawn(export::run(settings, tracer.clone(), spans, stopped));
        Some(Self { tracer, task, stop })
    }

    /// Sends what is left, if that is quick.
    pub(crate) async fn end(self) {
        drop(self.stop);
        let _ = tokio::time::timeout(export::LAST, self.task).await;
    }
}
