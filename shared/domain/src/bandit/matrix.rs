//! Lower triangles, packed by rows.

use crate::bandit::statistics::{packed, packed_len};

/// A lower triangle, or a symmetric matrix by its lower triangle.
#[derive(Clone, Debug)]
pub(super) struct Triangle {
    pub rows: usize,
    pub entries: Vec<f64>,
}

impl Triangle {
    pub fn zero(rows: usize) -> Triangle {
        Triangle {
            rows,
            entries: vec![0.0; packed_len(rows)],
        }
    }

    pub fn row(&self, row: usize) -> &[f64] {
        &self.entries[packed_len(row)..packed_len(row + 1)]
    }

    /// The entry of a symmetric matrix.
    pub fn symmetric(&self, row: usize, column: usize) -> f64 {
        self.entries[packed(row.max(column), row.min(column))]
    }

    pub fn set(&mut self, row: usize, column: usize, value: f64) {
        self.entries[packed(row, column)] = value;
    }

    /// The factor L with L·Lᵀ = this + the diagonal. Where rounding made it indefinite, the pivot stays at what the diagonal
    /// adds, so there always is one.
    pub fn cholesky(&self, diagonal: impl Fn(usize) -> f64) -> Triangle {
        let mut factor = Triangle::zero(self.rows);
        for row in 0..self.rows {
            let start = packed_len(row);
            for column in 0..=row {
                let (above, here) = factor.entries.split_at_mut(start);
                let left = &here[..column];
                let added = if row == column { diagonal(row) } else { 0.0 };
                let value = self.entries[start + column] + added;
                if column == row {
                    let pivot = value - dot(left, left);
                    here[column] = if pivot > added { pivot } else { added }.max(f64::MIN_POSITIVE).sqrt();
                } else {
                    let other = &above[packed_len(column)..packed_len(column + 1)];
                    here[column] = (value - dot(left, &other[..column])) / other[column];
                }
            }
        }
        factor
    }

    /// Solves L·v = b in place, this being L.
    pub fn solve(&self, vector: &mut [f64]) {
        for row in 0..self.rows {
            let entries = self.row(row);
            vector[row] = (vector[row] - dot(&entries[..row], &vector[..row])) / entries[row];
        }
    }

    /// Solves Lᵀ·v = b in place, this being L.
    pub fn solve_transposed(&self, vector: &mut [f64]) {
        for row in (0..self.rows).rev() {
            let entries = self.row(row);
            vector[row] /= entries[row];
            let value = vector[row];
            for (other, entry) in vector[..row].iter_mut().zip(entries) {
                *other -= value * entry;
            }
        }
    }

    /// The inverse of this as a lower triangle.
    pub fn inverse(&self) -> Triangle {
        let mut inverse = Triangle::zero(self.rows);
        for column in 0..self.rows {
            for row in column..self.rows {
                let entries = self.row(row);
                let mut sum = if row == column { 1.0 } else { 0.0 };
                for (between, entry) in entries.iter().enumerate().take(row).skip(column) {
                    sum -= entry * inverse.entries[packed(between, column)];
                }
                inverse.entries[packed(row, column)] = sum / entries[row];
            }
        }
        inverse
    }

    /// The logarithm of the determinant of L·Lᵀ, this being L.
    pub fn log_determinant(&self) -> f64 {
        (0..self.rows).map(|row| 2.0 * libm::log(self.row(row)[row])).sum()
    }
}

/// The sum of the products, in four sums side by side: one alone waits for each addition before the next.
pub(super) fn dot(one: &[f64], other: &[f64]) -> f64 {
    const LANES: usize = 4;
    let len = one.len().min(other.len());
    let ((one, one_rest), (other, other_rest)) = (one[..len].as_chunks::<LANES>(), other[..len].as_chunks::<LANES>());
    let mut sums = [0.0; LANES];
    for (one, other) in one.iter().zip(other) {
        for lane in 0..LANES {
            sums[lane] += one[lane] * other[lane];
        }
    }
    let rest: f64 = one_rest.iter().zip(other_rest).map(|(a, b)| a * b).sum();
    (sums[0] + sums[1]) + (sums[2] + sums[3]) + rest
}
