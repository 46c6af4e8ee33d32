// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// An embedding whose table is a tensor train: a product of small cores (Hrinchuk et al. 2019).

#include <algorithm>
#include <string>

#include <linnet/nn/embedding.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Numbers of a table [vocabulary, d_model] as a tensor train of two to four cores. A token is a
/// number with the digits i_1 ... i_n, of which i_k is below rows[k], the first the most
/// significant. A column likewise has digits j_k below columns[k].
struct tensor_train_shape {
  static constexpr index most = 4;
  index rows[most]{};       ///< factors of at least the vocabulary, as many as cores
  index columns[most]{};    ///< factors of d_model
  index ranks[most - 1]{};  ///< between neighbouring cores

  /// Number of cores.
  constexpr index cores() const {
    index n = 0;
    while (n < most && rows[n] > 0) ++n;
    return n;
  }
  /// Whether every core has its numbers, and no number is without a core.
  constexpr bool valid() const {
    const index n = cores();
    for (index k = 0; k < most; ++k)
      if ((columns[k] > 0) != (k < n) || (k >= n && rows[k] != 0)) return false;
    for (index k = 0; k + 1 < most; ++k)
      if (k + 1 < n ? ranks[k] <= 0 : ranks[k] != 0) return false;
    return n >= 2;
  }
  /// Rows and columns of the table.
  constexpr index table_rows() const { return product(rows, cores()); }
  /// @copydoc table_rows()
  constexpr index table_columns() const { return product(columns, cores()); }
  /// Rank before core `k`, 1 at the ends.
  constexpr index rank(index k) const { return k > 0 && k < cores() ? ranks[k - 1] : 1; }
  /// Numbers in a row of core `k`: [rank, columns, next rank].
  constexpr index width(index k) const { return rank(k) * columns[k] * rank(k + 1); }
  /// Columns of the product of the first `n` cores.
  constexpr index span(index n) const { return product(columns, n); }
  /// Numbers in the rows of cores [0, n).
  constexpr index widths(index n) const {
    index all = 0;
    for (index k = 0; k < n; ++k) all += width(k);
    return all;
  }

 private:
  static constexpr index product(const index* of, index n) {
    index all = 1;
    for (index k = 0; k < n; ++k) all *= of[k];
    return all;
  }
};

namespace detail {

/// The n-th root of x in (0, 1] for constant expressions, by halving.
constexpr double root_of(double x, index n) {
  double low = 0, high = 1;
  for (int i = 0; i < 60; ++i) {
    const double middle = 0.5 * (low + high);
    double power = 1;
    for (index k = 0; k < n; ++k) power *= middle;
    (power < x ? low : high) = middle;
  }
  return high;
}

/// Embedding ends for a tensor train. Its first core is the model's table, of which `entries` says
/// the rows. L_1 is a token's row of that, [columns, rank]. L_k is L_(k-1) times the token's row of
/// core k, [rank, columns * next rank]. Row x of the stream is the last L.
template <tensor_train_shape Shape, index D>
struct tensor_train_projection : reads_stream {
  static constexpr index cores = Shape.cores(), later = cores - 1;
  static constexpr index table = Shape.width(0), head = D;
  static constexpr index rows_of(index) { return Shape.rows[0]; }
  /// Deviation of the cores at which numbers of the table deviate by `of`. Each of those is a sum
  /// over all ranks of products, with one number of each core.
  static constexpr double deviation(double of) {
    double terms = 1;
    for (index k = 0; k < later; ++k) terms *= static_cast<double>(Shape.ranks[k]);
    return root_of(of / sqrt(terms), cores);
  }
  static constexpr double table_deviation = 0.02;  ///< as that of a whole table

  template <class Form>
  struct params {
    typename Form::matrix cores[static_cast<std::size_t>(later)]{};  ///< behind the first
  };
  template <class F, class... P>
  static constexpr void visit(F&& f, const parameter_path& at, P&... p) {
    const parameter_path all = at / "cores";
    for (index k = 1; k < cores; ++k)
      f(all.element(k, cores) / "weight",
        tensor_info{Shape.rows[k], Shape.width(k), role::table, deviation(table_deviation)},
        p.cores[k - 1]...);
  }
  /// No channel of the stream is a column of one core.
  struct map {
    template <class Ends, class P>
    static void channels(const Ends& c, P&) {
      c.keeps_whole(c.in, "a tensor train");
      c.keeps_whole(c.out, "a tensor train");
    }
  };

  template <class T>
  struct cache {
    token* digits = nullptr;  ///< [cores, rows] of each token
    index rows = 0;           ///< that are planned for
    T* first = nullptr;       ///< [rows, table] L_1
    T* room = nullptr;        ///< for each thread
    T* gradients = nullptr;   ///< [rows, width] of each core's rows, core by core
  };
  template <class T>
  static constexpr cache<T> plan(planner& m, const call_shape& e) {
    cache<T> c;
    c.rows = e.rows();
    c.digits = m.saved.take<token>(e.rows() * cores);
    c.first = m.saved.take<T>(e.rows() * table);
    c.room = m.saved.take<T>(e.threads * room_size);
    if (e.training) c.gradients = m.saved.take<T>(e.rows() * Shape.widths(cores));
    return c;
  }

  /// Rows of the first core for tokens.
  template <class T>
  static const token* entries(const cache<T>& c, const token* tokens, const context<T>& ctx) {
    ctx.on.threads.each(ctx.rows(), [&](index i) {
      index rest = tokens[i];
      for (index k = cores; k-- > 0; rest /= Shape.rows[k])
        c.digits[k * c.rows + i] = static_cast<token>(rest % Shape.rows[k]);
    });
    return c.digits;
  }
  template <class T>
  static T* rows(const cache<T>& c, T*) {
    return c.first;
  }
  template <class T, class S>
  static void widen(const params<form::packed<T, S>>& p, index n, T* x, const cache<T>& c,
                    context<T>& ctx) {
    T* const room = c.room + ctx.on.threads.rank() * room_size;
    ctx.on.threads.each(n, [&](index i) {
      const T* left = c.first + i * table;
      for (index k = 1; k < cores; ++k) {
        T* const next = k < later ? room + left_at(k) : x + i * D;
        multiply(k, left, core_row(p, k, i, c, room), next);
        left = next;
      }
    });
  }
  /// Gradient of the rows of the first core; adds those of the others.
  template <class T, class S>
  static T* widen_backward(const params<form::packed<T, S>>& p, params<form::gradient<T>>& dp,
                           index n, T* dx, const cache<T>& c, context<T>& ctx) {
    T* const room = c.room + ctx.on.threads.rank() * room_size;
    ctx.on.threads.each(n, [&](index i) { row_gradients(p, i, dx + i * D, c, room); });
    for (index k = 1; k < cores; ++k)
      ops::embed_backward(ctx.on, n, Shape.width(k), c.digits + k * c.rows, gradient_of(k, 0, c),
                          dp.cores[k - 1]);
    return c.gradients;
  }
  static constexpr index flops(const call_shape& e) {
    index each = 0;
    for (index k = 1; k < cores; ++k) each += 2 * Shape.span(k) * Shape.width(k);
    return e.rows() * each;
  }

 private:
  /// Numbers of L behind core `k`, counted from 0.
  static constexpr index left_size(index k) { return Shape.span(k + 1) * Shape.rank(k + 1); }
  /// Where it is in a thread's room, behind the rows of all cores.
  static constexpr index left_at(index k) {
    index at = Shape.widths(cores);
    for (index l = 1; l < k; ++l) at += left_size(l);
    return at;
  }
  static constexpr index largest_left = [] {
    index most = 0;
    for (index k = 0; k < cores; ++k) most = (std::max)(most, left_size(k));
    return most;
  }();
  /// A row of each core, each L, and the gradients of two.
  static constexpr index room_size = left_at(cores) + 2 * largest_left;

  /// Columns of core `k` with its next rank.
  static constexpr index columns_of(index k) { return Shape.width(k) / Shape.rank(k); }
  /// The row of core `k` for token `i`, in a thread's room.
  template <class T, class P>
  static const T* core_row(const P& p, index k, index i, const cache<T>& c, T* room) {
    T* const row = room + Shape.widths(k);
    const index entry = c.digits[k * c.rows + i], width = Shape.width(k);
    for (index j = 0; j < width; ++j) row[j] = p.cores[k - 1].at(entry, j, width);
    return row;
  }
  /// next[span, columns] = left[span, rank] g[rank, columns]
  template <class T>
  static void multiply(index k, const T* left, const T* g, T* next) {
    const index rank = Shape.rank(k), columns = columns_of(k);
    for (index a = 0; a < Shape.span(k); ++a) {
      std::fill_n(next + a * columns, columns, T(0));
      for (index r = 0; r < rank; ++r)
        for (index j = 0; j < columns; ++j)
          next[a * columns + j] += left[a * rank + r] * g[r * columns + j];
    }
  }
  /// Where the gradient of core `k` for token `i` goes.
  template <class T>
  static T* gradient_of(index k, index i, const cache<T>& c) {
    return c.gradients + c.rows * Shape.widths(k) + i * Shape.width(k);
  }
  /// Gradients of the rows of all cores for token `i`, from that of its row x.
  template <class T, class P>
  static void row_gradients(const P& p, index i, const T* dx, const cache<T>& c, T* room) {
    const T* const first = c.first + i * table;
    for (index k = 1; k < cores; ++k) {
      const T* const g = core_row(p, k, i, c, room);
      if (k < later) multiply(k, k > 1 ? room + left_at(k - 1) : first, g, room + left_at(k));
    }
    const T* d_next = dx;
    for (index k = later; k > 0; --k) {
      const index rank = Shape.rank(k), columns = columns_of(k);
      const T *const left = k > 1 ? room + left_at(k - 1) : first, *const g =
                                                                       room + Shape.widths(k);
      T *const d_left = k > 1 ? room + left_at(cores) + k % 2 * largest_left : gradient_of(0, i, c),
               *const d_g = gradient_of(k, i, c);
      std::fill_n(d_g, rank * columns, T(0));
      for (index a = 0; a < Shape.span(k); ++a)
        for (index r = 0; r < rank; ++r) {
          T sum{};
          for (index j = 0; j < columns; ++j) {
            const T d = d_next[a * columns + j];
            d_g[r * columns + j] += left[a * rank + r] * d;
            sum += d * g[r * columns + j];
          }
          d_left[a * rank + r] = sum;
        }
      d_next = d_left;
    }
  }
};

}  // namespace detail

namespace embedding {
/// A table [vocabulary, d_model] that is a tensor train (Hrinchuk et al. 2019, arXiv:1901.10787,
/// equation 3; Oseledets 2011). The number at a token and a column is the product of one matrix of
/// each core, G_1[i_1, j_1] ... G_n[i_n, j_n], which their digits choose. Rows beyond the
/// vocabulary are never read. Cores start normal, with the deviation at which numbers of the table
/// deviate by 0.02. A head that is tied would need whole rows of the table, so it is refused.
template <tensor_train_shape Shape>
struct tensor_train : policy {
  static_assert(Shape.valid(),
                "linnet::embedding::tensor_train: a shape has two to four cores, each with rows "
                "and columns, and a rank between neighbours");
  static constexpr bool whole_rows = false;
  using kind = tensor_train;
  static std::string name() {
    std::string text = "tensor_train";
    for (index k = 0; k < Shape.cores(); ++k)
      text += ' ' + std::to_string(Shape.rows[k]) + 'x' + std::to_string(Shape.columns[k]) +
              (k + 1 < Shape.cores() ? " rank " + std::to_string(Shape.ranks[k]) : "");
    return text;
  }
  /// Whether it is a table of that size.
  static constexpr bool fits(index vocabulary, index d_model) {
    return Shape.table_rows() >= vocabulary && Shape.table_columns() == d_model;
  }
  template <index D, bool Tied>
  using projection = linnet::detail::tensor_train_projection<Shape, D>;
};
}  // namespace embedding

LINNET_NAMESPACE_END
