//! The function that is profiled: a web shop that does three kinds of work, all of it for real.
//!
//! The amounts of work are fixed, the CPU it takes is not: what the profiles say was measured.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hint::black_box;

use super::profiler::Profiler;

/// What an invocation asks the shop to do, and how much of it.
#[derive(Clone, Copy)]
pub enum Event {
    Checkout { items: u64 },
    Search { words: u64 },
    Report { orders: u64 },
}

pub fn handler(profiler: &mut Profiler, event: Event) {
    match event {
        Event::Checkout { items } => {
            profiler.call(price_cart, items);
            profiler.call(render_invoice, items / 8);
        }
        Event::Search { words } => {
            profiler.call(build_index, words);
            profiler.call(rank_results, words / 2);
        }
        Event::Report { orders } => {
            profiler.call(sum_orders, orders);
            profiler.call(render_invoice, orders / 8);
        }
    }
}

fn price_cart(profiler: &mut Profiler, items: u64) {
    let total: u64 = (0..items * 30_000)
        .map(|item| black_box(item).wrapping_mul(97) % 1009)
        .sum();
    black_box(total);
    profiler.call(apply_discounts, items);
}

fn apply_discounts(_: &mut Profiler, items: u64) {
    let rules = 0..items * 8_000;
    black_box(rules.fold(1.0, |price: f64, rule| {
        (black_box(price) * 1.01).sqrt() + (rule % 7) as f64
    }));
}

fn render_invoice(_: &mut Profiler, lines: u64) {
    let mut page = String::new();
    for line in 0..lines * 1_000 {
        let _ = write!(
            page,
            "<tr><td>{line}</td><td>{:.2}</td></tr>",
            line as f64 / 7.0
        );
    }
    black_box(page);
}

fn build_index(_: &mut Profiler, words: u64) {
    let mut index: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for word in 0..words * 150 {
        index
            .entry(format!("{:03x}", word.wrapping_mul(2_654_435_761) % 1999))
            .or_default()
            .push(word);
    }
    black_box(index);
}

fn rank_results(_: &mut Profiler, results: u64) {
    let mut scores: Vec<u64> = (0..results * 400)
        .map(|n| n.wrapping_mul(6_364_136_223_846_793_005) >> 20)
        .collect();
    scores.sort_by_key(|&score| std::cmp::Reverse(black_box(score)));
    black_box(scores);
}

fn sum_orders(_: &mut Profiler, orders: u64) {
    let text: String = (0..orders * 500)
        .map(|order| format!("{},", order * 13 % 977))
        .collect();
    let sum: u64 = text
        .split(',')
        .filter_map(|price| price.parse::<u64>().ok())
        .sum();
    black_box(sum);
}
