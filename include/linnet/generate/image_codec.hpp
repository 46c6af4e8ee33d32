// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Images to codes of an image_tokenizer and back, and their place in a vocabulary of text.

#include <algorithm>
#include <span>
#include <string_view>
#include <vector>

#include <linnet/model/buffers.hpp>
#include <linnet/model/image_tokenizer.hpp>

LINNET_NAMESPACE_BEGIN

/// One vocabulary of texts and images: early fusion, as in Chameleon (arXiv:2405.09818). Tokens of
/// text come first, then two that begin and end an image, then one for each code. An image is
/// begin, its codes row by row, end.
struct fused_vocabulary {
  index text = 0;    ///< tokens of text, ids 0 to text - 1
  index codes = 0;   ///< codes of the image tokenizer
  index length = 0;  ///< codes of an image

  constexpr token begin() const { return static_cast<token>(text); }
  constexpr token end() const { return static_cast<token>(text + 1); }
  /// Number of all tokens: the vocabulary of the model.
  constexpr index size() const { return text + 2 + codes; }
  /// Token of a code.
  constexpr token of_code(token code) const { return static_cast<token>(text + 2 + code); }
  /// Code of a token, or -1.
  constexpr token code_of(token t) const {
    return t >= text + 2 && t < size() ? static_cast<token>(t - text - 2) : no_token;
  }
  /// Appends an image of `length` codes. False, and nothing done, for another number of codes, one
  /// that is none, or where memory lacks.
  bool append(std::span<const token> image, std::vector<token>& to) const LINNET_TRY {
    if (std::ssize(image) != length) return false;
    for (const token code : image)
      if (code < 0 || code >= codes) return false;
    to.reserve(to.size() + image.size() + 2);
    to.push_back(begin());
    for (const token code : image) to.push_back(of_code(code));
    to.push_back(end());
    return true;
  }
  LINNET_WITHOUT_MEMORY(return false)
  /// Codes of the first image at or behind `from`, which moves behind it. Empty where there is no
  /// whole image; then `from` is the end of the text.
  std::vector<token> next(std::span<const token> all, std::size_t& from) const LINNET_TRY {
    const auto n = static_cast<std::size_t>(length);
    for (; from < all.size(); ++from) {
      if (all[from] != begin() || all.size() - from < n + 2 || all[from + n + 1] != end()) continue;
      std::vector<token> image;
      for (const token t : all.subspan(from + 1, n)) image.push_back(code_of(t));
      if (std::find(image.begin(), image.end(), no_token) != image.end()) continue;
      from += n + 2;
      return image;
    }
    return {};
  }
  LINNET_WITHOUT_MEMORY(return {})
};

/// Runs an image_tokenizer. Memory is planned once; calls allocate nothing.
template <class M, class T = float>
class image_codec {
  using S = storage_of<M, T>;
  using E = typename M::embedding;

 public:
  /// Numbers of an image.
  static constexpr index image_size = E::height * E::width * E::channels;

  /// Exact bytes that a codec with these limits allocates.
  static constexpr index footprint(const limits& l) {
    return detail::bounded_bytes(l, [](const limits& some) {
      return add_sizes(detail::plan_for<M, T>(some, purpose::scoring).total(),
                       some.batch * image_size * index{sizeof(float)});
    });
  }
  /// Opens a codec for batches up to these limits. `p` must outlive it. Errors: errc::invalid for
  /// limits that make no sense, errc::out_of_memory, and the error of `p` if it is not valid().
  static result<image_codec> open(const packed<M, T>& p, const limits& l) LINNET_TRY {
    if (auto fit = detail::acceptable<M>("image_codec::open", l, footprint(l)); !fit)
      return fit.error();
    if (!p.valid()) return p.error();
    image_codec made(p, l);
    if (!made.memory_.data()) return detail::out_of_memory("image_codec::open", footprint(l));
    made.work_ = detail::place_workspace<M, T>(l, purpose::scoring, made.memory_.data());
    made.pixels_ = reinterpret_cast<float*>(static_cast<std::byte*>(made.memory_.data()) +
                                            detail::plan_for<M, T>(l, purpose::scoring).total());
    return made;
  }
  LINNET_OR_OUT_OF_MEMORY("image_codec::open")

  /// Codes [batch, tokens] of images, -1 where pixels are no numbers. Valid until the next call;
  /// empty, and nothing done, for images that do not fit.
  std::span<const token> encode(const image_view& images, index batch) {
    const encoder_batch b = image_batch<M>(images, batch);
    reason_ = M::refuses(b, limits_);
    if (reason_ != refusal::none) return {};
    run(limits_, work_.converted, [&](const ops::execution& on) {
      context<T> ctx = M::template context_of<T>(b, on);
      M::template encode<T, S>(packed_->tree(), b, work_.work, ctx);
    });
    return {work_.work.codebook.codes, static_cast<std::size_t>(batch * E::tokens)};
  }
  /// Images [batch, height, width, channels] of codes [batch, tokens]. Valid until the next call;
  /// empty, and nothing done, for codes that are not in the codebook or too many.
  std::span<const float> decode(std::span<const token> codes) {
    encoder_batch b;
    b.batch = std::ssize(codes) / E::tokens;
    batch_check c(b.batch, limits_.batch);
    c.no(b.batch * E::tokens != std::ssize(codes), refusal::uneven);
    c.tokens(codes.data(), E::tokens, M::vocabulary);
    reason_ = c.why;
    if (!c.fits()) return {};
    run(limits_, work_.converted, [&](const ops::execution& on) {
      context<T> ctx = M::template context_of<T>(b, on);
      auto& w = work_.work;
      constexpr index width = M::shape.width;
      on.threads.each(ctx.rows(), [&](index i) {
        std::copy_n(packed_->tree().codebook.codes + codes[static_cast<std::size_t>(i)] * width,
                    width, w.chosen + i * width);
      });
      M::template decode<T, S>(packed_->tree(), w, ctx);
      on.threads.each(ctx.rows(), [&](index i) {
        constexpr index line = E::patch * E::channels;
        float* const to = pixels_ + E::first_number(i / E::tokens, i % E::tokens);
        for (index row = 0; row < E::patch; ++row)
          for (index j = 0; j < line; ++j)
            to[row * E::width * E::channels + j] =
                static_cast<float>(w.made[i * M::pixels + row * line + j]);
      });
    });
    return {pixels_, static_cast<std::size_t>(b.batch * image_size)};
  }
  /// Why the last call gave nothing: one of the texts of to_string(refusal), empty after a call
  /// that did what was asked. Static text, zero-terminated and never null.
  std::string_view last_refusal() const noexcept {
    return to_string(limits_.batch < 1 ? refusal::not_valid : reason_);
  }

 private:
  image_codec(const packed<M, T>& p, const limits& l)
      : packed_(&p), limits_(l), memory_(footprint(l)) {}

  const packed<M, T>* packed_;
  detail::owned_limits limits_;
  memory_block memory_;
  detail::placed_workspace<M, T> work_{};
  float* pixels_ = nullptr;
  refusal reason_ = refusal::none;
};

LINNET_NAMESPACE_END
