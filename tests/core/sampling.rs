//! The core keeps a share of the profiles, and counts the others.

use std::time::Duration;

use super::world::{OK, World};

/// Whether a profile uploaded now is sent on; it is answered in both cases.
fn is_kept(world: &mut World) -> bool {
    let before = world.totals();
    world.post("profile");
    let open: Vec<_> = if world.connecting.is_empty() {
        world.written.keys().copied().collect()
    } else {
        vec![world.connect()]
    };
    open.into_iter().for_each(|id| world.answer(id, OK));
    let after = world.totals();
    assert_eq!(after.acknowledged, before.acknowledged + 1);
    after.relayed > before.relayed
}

#[test]
fn profiles_of_one_minute_are_kept_or_left_out_together() {
    let mut world = World::new(&[("PYROSCOPE_SAMPLE", "0.5")]);
    let mut kept = [0, 0];
    for _ in 0..40 {
        let first = is_kept(&mut world);
        for _ in 0..3 {
            world.pass(Duration::from_secs(19));
            assert_eq!(is_kept(&mut world), first, "the same minute");
        }
        kept[usize::from(first)] += 1;
        world.pass(Duration::from_secs(3));
    }
    assert!(kept[0] > 8 && kept[1] > 8, "{kept:?}");
    let totals = world.totals();
    assert_eq!(totals.left_out, [0, 4 * kept[0]]);
    assert_eq!(totals.relayed, 4 * kept[1]);
    world.relay.terminated(world.now);
    world.settle();
    let counted = format!(" sampled_out={} ", 4 * kept[0]);
    assert!(world.log().contains(&counted), "the last line says so");
}

#[test]
fn of_ten_thousand_sandboxes_a_tenth_keeps_its_minute() {
    let mut kept = 0;
    for sandbox in 0..10_000 {
        let mut world = World::new(&[("PYROSCOPE_SAMPLE", "0.1")]);
        let first = is_kept(&mut world);
        for _ in 0..2 {
            world.pass(Duration::from_secs(29));
            assert_eq!(is_kept(&mut world), first, "sandbox {sandbox}, one minute");
        }
        world.relay.terminated(world.now);
        world.settle();
        let totals = world.totals();
        let (relayed, left_out) = if first { (3, 0) } else { (0, 3) };
        assert_eq!(totals.acknowledged, 3, "sandbox {sandbox}");
        assert_eq!(totals.relayed, relayed, "sandbox {sandbox}");
        assert_eq!(totals.left_out, [0, left_out], "sandbox {sandbox}");
        assert_eq!(totals.lost_sum(), 0, "sandbox {sandbox}");
        kept += u32::from(first);
    }
    // Three standard deviations: 3 * sqrt(10,000 * 0.1 * 0.9).
    assert!(
        (910..=1090).contains(&kept),
        "{kept} of 10,000 sandboxes keep this minute"
    );
}

#[test]
fn without_the_setting_all_are_kept() {
    let mut world = World::new(&[]);
    for _ in 0..40 {
        assert!(is_kept(&mut world));
        world.pass(Duration::from_mins(1));
    }
}
