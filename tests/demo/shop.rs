//! The function that is profiled: a web shop's checkout, with real work in functions of different weight.

use std::fmt::Write as _;
use std::hint::black_box;
use std::time::Duration;

use super::profiler::{Profiler, cpu_time};

pub fn checkout(profiler: &mut Profiler) {
    profiler.call(read_order);
    profiler.call(price_cart);
    profiler.call(render_invoice);
}

fn read_order(_: &mut Profiler) {
    burn(Duration::from_millis(15), |round| {
        let text: String = (0..40)
            .map(|n| char::from(b'0' + ((n * round) % 10) as u8))
            .collect();
        text.chars()
            .filter_map(|digit| u64::from(digit).checked_mul(round))
            .sum()
    });
}

fn price_cart(profiler: &mut Profiler) {
    profiler.call(apply_discounts);
    burn(Duration::from_millis(25), |round| {
        (1..200_u64).map(|item| item.wrapping_mul(round) % 97).sum()
    });
}

fn apply_discounts(_: &mut Profiler) {
    burn(Duration::from_millis(40), |round| {
        let price = (1..200).fold(round as f64, |price, rule| {
            (price * 1.01).sqrt() + f64::from(rule)
        });
        price as u64
    });
}

fn render_invoice(_: &mut Profiler) {
    burn(Duration::from_millis(20), |round| {
        let mut page = String::new();
        for line in 0..20 {
            let _ = write!(page, "<td>{line}</td><td>{round}</td>");
        }
        page.len() as u64
    });
}

/// Works until this thread has used that much CPU.
fn burn(budget: Duration, mut work: impl FnMut(u64) -> u64) {
    let until = cpu_time() + budget;
    let mut round = 1;
    while cpu_time() < until {
        black_box(work(black_box(round)));
        round += 1;
    }
}
