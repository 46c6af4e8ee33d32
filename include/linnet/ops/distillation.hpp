// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Losses of knowledge distillation over logits: a divergence of the student's distribution from
/// the teachers', beside cross-entropy with the labels (Hinton et al. 2015; Lee et al. 2023,
/// UCB/EECS-2023-141, eq. 3.1 to 3.3; Wen et al. 2023; Agarwal et al. 2024).

#include <algorithm>
#include <array>
#include <cmath>

#include <linnet/core/options.hpp>
#include <linnet/ops/language.hpp>

LINNET_NAMESPACE_BEGIN

/// Divergence between the teachers' distribution p and the student's q.
enum class divergence {
  cross_entropy,  ///< -sum p log q: KL(p || q) and p's entropy, which has no gradient
  kl,             ///< KL(p || q) = sum p log(p / q): covers all that the teachers do
  reverse_kl,     ///< KL(q || p): seeks what the teachers do most
  jsd,            ///< beta KL(p || m) + (1 - beta) KL(q || m), m = beta p + (1 - beta) q. As in GKD
                  ///< (Agarwal et al. 2024), beta 0 is kl and beta 1 reverse_kl
  total_variation,  ///< sum |p - q| / 2
  jsd_teacher,      ///< beta KL(p || m): the half of jsd that f-distill (Wen et al. 2023) takes on
                    ///< the teachers' texts; beta there is 1 - beta here
  jsd_student       ///< (1 - beta) KL(q || m): the half for the student's own texts
};

/// How the distributions of several teachers become one.
enum class fusion {
  probabilities,        ///< the mean of probabilities
  logits,               ///< the mean of logits (BabyLlama, Timiryasov and Tastet 2023)
  least_cross_entropy,  ///< for each sequence the teacher with the least cross-entropy with its
                        ///< labels (MinCE of FuseLLM, Wan et al. 2024)
  likely                ///< the mean of probabilities, weighted for each sequence by exp(-mean
                        ///< cross-entropy) (AvgCE of FuseLLM)
};

/// Options of knowledge distillation. With p_j(tau) = softmax(logits / tau)_j, a token's loss is
///   alpha (cross-entropy with the label + z-loss) + (1 - alpha) w tau^2 D(p^t, p^s).
/// Both p^s and p^t are at the temperature tau, and p^t is the fusion of the teachers. Like the
/// hard loss it is summed over the tokens that are not `ignored`, and the trainer divides by their
/// number. By default D is the cross-entropy, which is not zero for a perfect student. But its
/// gradient by the student's logits, (1 - alpha) tau (p^s - p^t), is.
struct distillation_options {
  double alpha = 0.1;      ///< weight of the hard loss, 0 to 1; at 1 no teacher is asked
  double temperature = 3;  ///< tau, positive
  std::array<double, 4> shares{1, 1, 1, 1};  ///< relative weights of the teachers
  linnet::divergence divergence = divergence::cross_entropy;
  double beta = 0.5;  ///< of jsd and its halves: the teachers' share in the mixture
  linnet::fusion fusion = fusion::probabilities;
  double entropy_weight = 0;  ///< c in a token's weight w. With h the entropy of p^t over the
                              ///< largest possible, w = 1 - c + c h for c >= 0, else 1 + c h

  /// Calls f(name, value, range) for each option, see docs/options.md.
  template <class Self, class F>
  static constexpr void visit_options(Self& self, F&& f) {
    f("alpha", self.alpha, detail::between(0, 1, "at 1 no teacher is asked"));
    f("temperature", self.temperature, detail::above(0));
    f("shares", self.shares, detail::at_least(0));
    f("divergence", self.divergence, detail::one_of(divergences));
    f("beta", self.beta, detail::between(0, 1));
    f("fusion", self.fusion, detail::one_of(fusions));
    f("entropy_weight", self.entropy_weight, detail::between(-1, 1, "0 weighs tokens alike"));
  }

 private:
  static constexpr const char* divergences[] = {
      "cross_entropy", "kl", "reverse_kl", "jsd", "total_variation", "jsd_teacher", "jsd_student"};
  static constexpr const char* fusions[] = {"probabilities", "logits", "least_cross_entropy",
                                            "likely"};
};

/// Distillation of BabyLlama (Timiryasov and Tastet 2023): half of labels, half of the mean of the
/// teachers' logits at temperature 2.
inline constexpr distillation_options babyllama_distillation{
    .alpha = 0.5, .temperature = 2, .fusion = fusion::logits};

namespace ops {

/// Numbers of scratch memory that distil() takes for a team of that size.
template <class T>
constexpr index distil_scratch(index vocabulary, index threads) {
  return 3 * threads * round_up(vocabulary, 64 / static_cast<index>(sizeof(T)));
}

namespace detail {

/// y = a - b
template <class T>
void row_difference(index n, const T* a, const T* b, T* y) {
  for (index j = 0; j < n; ++j) y[j] = a[j] - b[j];
}
/// Turns logits into log-probabilities; `scratch` has room for a row.
template <class K, class T>
void log_softmax_row(index n, T* x, T* scratch) {
  const T largest = K::template maximum<T>(n, x);
  std::copy_n(x, n, scratch);
  const T log_sum = std::log(K::template exp_sum<T>(n, largest, scratch));
  for (index j = 0; j < n; ++j) x[j] = (x[j] - largest) - log_sum;
}
/// log(1 + e^x) with the bits that the kernel gives a row.
template <class K, class T>
T softplus_of(T x) {
  K::template softplus<T>(1, &x);
  return x;
}

/// One row of the divergence: `p` and `q` hold log-probabilities, which are overwritten. Returns
/// the divergence and puts its gradient by q's logits into `d`.
template <class K, class T>
double divergence_row(index n, const distillation_options& how, T* p, T* q, T* d) {
  const double beta = how.beta;
  const auto kind = how.divergence != divergence::jsd ? how.divergence
                    : beta <= 0                       ? divergence::kl
                    : beta >= 1                       ? divergence::reverse_kl
                                                      : divergence::jsd;
  const T zero(0);
  const auto dot = [&](const T* a, const T* b) {
    return static_cast<double>(K::template dot<T>(n, a, b));
  };
  double loss = 0;
  if (kind == divergence::cross_entropy) {
    K::template exp_sum<T>(n, zero, p);
    loss = -dot(p, q);
    K::template exp_sum<T>(n, zero, q);
    row_difference(n, q, p, d);
    return loss;
  }
  row_difference(n, p, q, d);  // log(p / q), exactly 0 where they are equal
  K::template exp_sum<T>(n, zero, p);
  K::template exp_sum<T>(n, zero, q);
  if (kind == divergence::kl) {
    loss = dot(p, d);
    row_difference(n, q, p, d);
    return loss;
  }
  if (kind == divergence::reverse_kl) {
    loss = -dot(q, d);
    K::template scale<T>(n, T(-1), d);
  } else if (kind == divergence::jsd) {
    const double kl = dot(p, d);
    // log(m / q) = softplus(x + c) - softplus(c) with c = log(beta / (1 - beta))
    const T c = static_cast<T>(std::log(beta / (1 - beta))), origin = softplus_of<K>(c);
    for (index j = 0; j < n; ++j) d[j] += c;
    K::template softplus<T>(n, d);
    for (index j = 0; j < n; ++j) d[j] -= origin;
    loss = beta * (kl - dot(p, d)) - (1 - beta) * dot(q, d);
    K::template scale<T>(n, static_cast<T>(beta - 1), d);
  } else if (kind != divergence::total_variation) {
    const bool of_teacher = kind == divergence::jsd_teacher;
    const double sign = of_teacher ? -1 : 1, weight = of_teacher ? beta : 1 - beta;
    if (!(beta > 0 && beta < 1)) {  // m is p or q
      std::fill_n(d, n, zero);
      return 0;
    }
    // log(m / p) or log(m / q), as above
    const T c = static_cast<T>(sign * std::log(beta / (1 - beta))), origin = softplus_of<K>(c);
    for (index j = 0; j < n; ++j) d[j] = static_cast<T>(sign) * d[j] + c;
    K::template softplus<T>(n, d);
    for (index j = 0; j < n; ++j) d[j] -= origin;
    loss = -weight * dot(of_teacher ? p : q, d);
    for (index j = 0; j < n; ++j) {
      const T rest = static_cast<T>(1 - beta) * std::expm1(-d[j]);
      d[j] = static_cast<T>(-weight) * (of_teacher ? rest : d[j] + rest);
    }
  } else {
    for (index j = 0; j < n; ++j) {
      const T x = q[j] - p[j];
      p[j] = x < zero ? -x : x;
      d[j] = static_cast<T>(T(0.5) * static_cast<T>((x > zero) - (x < zero)));
    }
    loss = 0.5 * static_cast<double>(K::template total<T>(n, p));
  }
  K::template softmax_backward<T>(n, q, d, d);
  return loss;
}

/// A token's weight by the entropy of log-probabilities `p`; `scratch` has room for a row.
template <class K, class T>
double entropy_weight_row(index n, double c, const T* p, T* scratch) {
  std::copy_n(p, n, scratch);
  K::template exp_sum<T>(n, T(0), scratch);
  const double entropy = -static_cast<double>(K::template dot<T>(n, scratch, p));
  const double h = n > 1 ? entropy / std::log(static_cast<double>(n)) : 0;
  return c >= 0 ? 1 - c + c * h : 1 + c * h;
}

/// Rows of a thread's scratch memory.
template <class T>
struct distil_rows {
  T *target, *other, *third;
};
/// Whether log-probabilities of the teachers are needed, not just their probabilities.
inline bool distils_logs(const distillation_options& how) {
  return how.divergence != divergence::cross_entropy || how.entropy_weight != 0;
}
/// Puts the fusion of the teachers' distributions into `at.target`, as log-probabilities if
/// distils_logs().
template <class K, class T, class Teacher>
void fuse_teachers(index n, const distillation_options& how, index teachers, index row,
                   const Teacher& teacher, const distil_rows<T>& at) {
  const bool in_logs = distils_logs(how), mean_logits = how.fusion == fusion::logits;
  const T inverse = T(1 / how.temperature);
  bool begun = false;
  for (index t = 0; t < teachers; ++t) {
    T* const p = begun ? at.other : at.target;
    const double share = teacher(t, row, p);
    if (share == 0) continue;
    const bool mixed = share != 1;
    K::template scale<T>(n, mean_logits ? T(share) * inverse : inverse, p);
    if (!mean_logits && in_logs) {
      log_softmax_row<K>(n, p, at.third);
      const T log_share = mixed ? static_cast<T>(std::log(share)) : T(0);
      for (index j = 0; j < n; ++j) p[j] += log_share;
      if (begun) {  // log(a + b) = log a + softplus(log b - log a)
        row_difference(n, p, at.target, p);
        K::template softplus<T>(n, p);
      }
    } else if (!mean_logits) {
      K::template softmax<T>(n, p);
      if (mixed) K::template scale<T>(n, T(share), p);
    }
    if (begun) K::template add<T>(n, at.target, p, at.target);
    begun = true;
  }
  if (mean_logits && in_logs)
    log_softmax_row<K>(n, at.target, at.third);
  else if (mean_logits)
    K::template softmax<T>(n, at.target);
}
/// The divergence of a row of the student's logits from `at.target`. Its gradient by logits over
/// the temperature is in `at.other`. Sets the token's weight, which neither has.
template <class K, class T>
double soft_row(index n, const distillation_options& how, const T* logits, const distil_rows<T>& at,
                double& weight) {
  const T inverse = T(1 / how.temperature);
  if (distils_logs(how)) {
    if (how.entropy_weight != 0)
      weight = entropy_weight_row<K>(n, how.entropy_weight, at.target, at.third);
    std::copy_n(logits, n, at.third);
    K::template scale<T>(n, inverse, at.third);
    log_softmax_row<K>(n, at.third, at.other);
    return divergence_row<K>(n, how, at.target, at.third, at.other);
  }
  std::copy_n(logits, n, at.other);
  K::template scale<T>(n, inverse, at.other);
  // -sum p^t log p^s = lse - sum p^t logits / tau
  const T largest = K::template maximum<T>(n, at.other);
  const double expected = static_cast<double>(K::template dot<T>(n, at.target, at.other));
  const T sum = K::template exp_sum<T>(n, largest, at.other);
  // Normalized as the teachers are, so that equal logits leave exactly nothing.
  K::template scale<T>(n, T(1) / sum, at.other);
  K::template scale<T>(n, T(-1), at.target);
  K::template add<T>(n, at.other, at.target, at.other);
  return std::log(static_cast<double>(sum)) + static_cast<double>(largest) - expected;
}

}  // namespace detail

/// Factors of a row's two losses: of a label's as a function of its cross-entropy, and of the
/// divergence.
struct row_weights {
  double label;       ///< the label's loss
  double slope;       ///< its derivative by the cross-entropy
  double divergence;  ///< factor of the divergence
};

/// Computes the distillation loss of rows [first, first + rows) of the student's head, as a
/// criterion does (see label_cross_entropy). `teacher(t, i, to)` writes the logits of teacher t <
/// `teachers` for row first + i to to[vocabulary], and returns its share. The shares of a row add
/// up to 1; a teacher that has none need not write. `scratch` has distil_scratch() numbers. If
/// there is a teacher.weights(i, cross_entropy), it returns a row's row_weights in place of those
/// of alpha. Rows labelled `ignored` give 0, or if there is a teacher.unlabelled(i), the divergence
/// times that.
template <class T, class S, class Teacher>
void distil(const execution& on, const head_call<T, S>& h, index first, index rows,
            const distillation_options& how, index teachers, T* scratch, const Teacher& teacher) {
  const index n = h.vocabulary;
  const token* const labels = h.labels + first;
  const bool gradient = h.dy != nullptr;
  const index stride = distil_scratch<T>(n, 1) / 3;
  T* const own = scratch + on.threads.rank() * 3 * stride;
  const detail::distil_rows<T> at{own, own + stride, own + 2 * stride};
  on.threads.each(rows, [&](index i) {
    T* const row = h.chunk + i * n;
    const bool labelled = labels[i] != ignored;
    double unlabelled = 0;
    if constexpr (requires { teacher.unlabelled(i); })
      if (!labelled) unlabelled = teacher.unlabelled(i);
    double& loss = h.losses[first + i] = 0;
    if (!labelled && gradient && unlabelled == 0) std::fill_n(row, n, T(0));
    if (!labelled && unlabelled == 0) return;
    on.with_kernels([&](auto k) {
      using K = decltype(k);
      detail::fuse_teachers<K>(n, how, teachers, i, teacher, at);
      double weight = 1;
      const double soft = detail::soft_row<K>(n, how, row, at, weight);
      row_weights by{0, 0, unlabelled};
      if (labelled) {
        const double hard = detail::cross_entropy_row<K>(n, labels[i], row, gradient, h.z_loss);
        by = {how.alpha * hard, how.alpha, 1 - how.alpha};
        if constexpr (requires { teacher.weights(i, hard); }) by = teacher.weights(i, hard);
      } else if (gradient) {
        std::fill_n(row, n, T(0));
      }
      weight *= by.divergence * how.temperature;
      if (gradient) {
        K::template scale<T>(n, T(weight), at.other);
        K::template scale<T>(n, T(by.slope), row);
        K::template add<T>(n, row, at.other, row);
      }
      loss = by.label + weight * how.temperature * soft;
    });
  });
}

}  // namespace ops

LINNET_NAMESPACE_END
