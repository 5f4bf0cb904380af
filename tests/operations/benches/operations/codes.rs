//! Cost of a code apart from sending: drawing, digesting, sealing for the store, and checking it as
//! typed, with two keys.

use watchword_core::{Code, CodeLength, TypedCode};
use watchword_verifier::measured::{digest, digests, open_code, seal_code};

use crate::operation::Operation;
use crate::samples::{Seeded, keys, sealer, service, verification_id};

pub fn operations() -> anyhow::Result<Vec<Operation>> {
    let entropy = Seeded::new();
    let code: Code = "012345".parse()?;
    let (service, id) = (service()?, verification_id()?);

    let draw = move || Code::draw(CodeLength::default(), &entropy).ok();
    let digested = {
        let (keys, service, id, code) = (keys()?, service.clone(), id.clone(), code.clone());
        move || Some(digest(keys.first(), &service, &id, code.expose()))
    };
    let checked = {
        let (keys, id) = (keys()?, id.clone());
        move || {
            let typed: TypedCode = "012 345".parse().ok()?;
            Some(digests(&keys, &service, &id, typed.expose()))
        }
    };
    let sealed = seal_code(&sealer()?, &id, &code)?;
    let seal = {
        let (sealer, id) = (sealer()?, id.clone());
        move || seal_code(&sealer, &id, &code).ok()
    };
    let opener = sealer()?;
    let open = move || open_code(&opener, &id, opener.key_id(), &sealed).ok();
    Ok(vec![
        Operation::new("code: draw", draw),
        Operation::new("code: digest", digested),
        Operation::new("code: check, two keys", checked),
        Operation::new("code: seal for the store", seal),
        Operation::new("code: open of the store", open),
    ])
}
