//! Simulated processes: the product's own issuer, verifier, stepper, workers and receipts,
//! connected to the simulated peers.

use std::future::pending;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use watchword_broker::Consumer;
use watchword_chassis::spans::Spans;
use watchword_core::{Channel, Live, Sealer, Service};
use watchword_delivery::{
    Choose, DeliveryMetrics, Dispatcher, DispatcherParts, Provider, Receipts, ReceiptsParts,
    Reporter, RouteConfig, Router, Rules, Worker,
};
use watchword_events::Lane;
use watchword_issuer::{Issuer, IssuerParts, MessageCheck, Stepper, StepperParts, Unsendable};
use watchword_verifier::{OpenRequest, Opener, Verifier, VerifierParts};

use crate::broker::{SimConsumer, SimPublisher};
use crate::caller::Front;
use crate::codes::SimCodes;
use crate::gateway::SimProvider;
use crate::history::{Gateway, Node};
use crate::ledger::SimLedger;
use crate::limits::SimLimiter;
use crate::world::{Seat, World};

/// Accepts every message, because the simulated workers render no texts.
struct EveryMessage;

impl MessageCheck for EveryMessage {
    fn check(&self, _: &Service, _: Channel, _: &OpenRequest) -> Result<(), Unsendable> {
        Ok(())
    }
}

/// Starts a process `node`.
pub fn start(world: &Arc<World>, node: Node) {
    let seat = world.seat(node);
    world.lock().say(node, || "starts");
    match node {
        Node::IssuerA | Node::IssuerB => front(&seat),
        Node::WorkerA | Node::WorkerB => back(&seat),
    }
}

fn run(seat: &Seat, role: impl Future<Output = ()> + Send + 'static) {
    let task = tokio::spawn(role);
    seat.world.owns(seat.node, task.abort_handle());
}

fn consumer(seat: &Seat, lane: Lane) -> Box<dyn Consumer> {
    Box::new(SimConsumer {
        seat: seat.clone(),
        lane,
    })
}

fn front(seat: &Seat) {
    let (world, kit) = (&seat.world, &seat.world.kit);
    let clock = Arc::new(seat.clone());
    let sealer = Live::new(Sealer::new(kit.keys.clone(), world.clone()));
    let verifier = Arc::new(Verifier::new(VerifierParts {
        store: Arc::new(SimCodes(seat.clone())),
        index: kit.index.clone(),
        digest_keys: Live::new(kit.keys.clone()),
        clock: clock.clone(),
        entropy: world.clone(),
        metrics: kit.verifier.clone(),
    }));
    let ledger = Arc::new(SimLedger(seat.clone()));
    let issuer = Arc::new(Issuer::new(IssuerParts {
        opener: Arc::new(Opener::new(verifier.clone(), sealer.clone())),
        limiter: Arc::new(SimLimiter(seat.clone())),
        ledger: ledger.clone(),
        publisher: Arc::new(SimPublisher(seat.clone())),
        sealer,
        clock: clock.clone(),
        metrics: kit.issuer.clone(),
        texts: Live::new(Box::new(EveryMessage)),
    }));
    let stepper = Stepper::new(StepperParts {
        issuer: issuer.clone(),
        ledger,
        services: kit.services.clone(),
        clock,
        metrics: kit.issuer.clone(),
    });
    run(seat, stepper.run(consumer(seat, Lane::Timers), pending()));
    let front = Front { issuer, verifier };
    seat.lock().callers.fronts[seat.node as usize] = Some(front);
}

fn back(seat: &Seat) {
    let kit = &seat.world.kit;
    let gateways: [(Channel, &[Gateway], &DeliveryMetrics); 2] = [
        (Channel::Sms, &[Gateway::One, Gateway::Two], &kit.sms),
        (Channel::Email, &[Gateway::Mail], &kit.mail),
    ];
    let mut routers = Vec::new();
    for (channel, gateways, metrics) in gateways {
        let router = router(seat, gateways);
        let reporter = reporter(seat, metrics);
        let dispatcher = Dispatcher::new(
            DispatcherParts {
                channel,
                router: router.clone(),
                rules: Live::new(Rules::default()),
                ledger: Arc::new(SimLedger(seat.clone())),
                sealer: Live::new(Sealer::new(kit.keys.clone(), seat.world.clone())),
                services: kit.services.clone(),
                calls: Semaphore::new(2),
                stop: CancellationToken::new(),
                clock: Arc::new(seat.clone()),
                metrics: metrics.clone(),
                spans: Spans::off(),
            },
            reporter.clone(),
        );
        let worker = Worker::new(dispatcher);
        run(
            seat,
            worker.run(consumer(seat, Lane::Send(channel)), pending()),
        );
        routers.push((router, reporter));
    }
    // The SMS worker handles receipts in the product, too.
    let (router, reporter) = routers.swap_remove(0);
    let receipts = Receipts::new(ReceiptsParts {
        router,
        ledger: Arc::new(SimLedger(seat.clone())),
        reporter,
        clock: Arc::new(seat.clone()),
        metrics: kit.sms.clone(),
    });
    run(
        seat,
        receipts.run(consumer(seat, Lane::Receipts), pending()),
    );
}

fn reporter(seat: &Seat, metrics: &DeliveryMetrics) -> Arc<Reporter> {
    Arc::new(Reporter::new(
        Arc::new(SimPublisher(seat.clone())),
        Arc::new(seat.clone()),
        metrics.clone(),
    ))
}

fn router(seat: &Seat, gateways: &[Gateway]) -> Live<Router> {
    let now = seat.lock().now_at(seat.node);
    let providers: Vec<Arc<dyn Provider>> = gateways
        .iter()
        .map(|&gateway| {
            Arc::new(SimProvider {
                seat: seat.clone(),
                gateway,
                name: gateway.name(),
            }) as Arc<dyn Provider>
        })
        .collect();
    let route = RouteConfig {
        countries: Vec::new(),
        prefixes: Vec::new(),
        domains: Vec::new(),
        choose: Choose::Ordered,
        providers: gateways
            .iter()
            .map(|gateway| gateway.name().to_string())
            .collect(),
    };
    Live::new(Router::new(providers, &[route], now).unwrap())
}
