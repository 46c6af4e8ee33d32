// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: a C interface of your own model type, see docs/c-interface.md. One translation unit
/// exports it:
///
///     extern "C" const linnet_api* my_model(std::uint32_t abi) {
///       return linnet::c_interface<MyModel>(abi);
///     }

#include <algorithm>
#include <cstdint>
#include <new>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#include <linnet/c_api.h>
#include <linnet/core/refusal.hpp>
#include <linnet/formats/npz_weights.hpp>
#include <linnet/formats/packed_file.hpp>
#include <linnet/generate/session.hpp>
#include <linnet/model/initialize.hpp>
#include <linnet/train/trainer.hpp>

LINNET_NAMESPACE_BEGIN

namespace detail {

static_assert(LINNET_IGNORED == ignored && std::is_same_v<token, std::int32_t>);
static_assert(LINNET_INVALID == static_cast<int>(errc::invalid) + 1 &&
              LINNET_MALFORMED == static_cast<int>(errc::malformed) + 1);

/// The line on the last call of this thread, of which as much is kept as fits.
inline LINNET_THREAD_LOCAL char c_message[512] = "";

LINNET_COLD inline linnet_code c_say(linnet_code code, std::string_view line) {
  const std::size_t size = (std::min)(line.size(), sizeof c_message - 1);
  std::copy_n(line.data(), size, c_message);
  c_message[size] = '\0';
  return code;
}
LINNET_COLD inline linnet_code c_failed(const error& e) LINNET_TRY {
  return c_say(static_cast<linnet_code>(static_cast<int>(e.code) + 1), e.message());
}
LINNET_WITHOUT_MEMORY(return c_say(LINNET_OUT_OF_MEMORY, "expected enough memory, got less"))
/// Ends a call: success, or the error of a result.
inline linnet_code c_done(const result<void>& did) {
  return did ? c_say(LINNET_OK, "") : c_failed(did.error());
}
inline linnet_code c_refused(std::string_view why) { return c_say(LINNET_REFUSED, why); }

/// The options of a caller, whose struct must be as large as this one.
template <class Options>
bool c_take(const Options* given, Options& to) {
  if (given == nullptr) return true;
  if (given->size != sizeof(Options)) return false;
  to = *given;
  return true;
}

/// The functions of model `M` for C.
template <class M>
struct c_functions {
  using S = storage_of<M, float>;
  static constexpr bool has_arrays =
      std::is_same_v<S, storage::f32> || std::is_same_v<S, storage::f16>;
  static constexpr bool trains =
      std::is_same_v<S, storage::f32> && std::is_same_v<typename M::batch, decoder_batch>;
  struct no_trainer {};

  /// Everything behind a linnet_model of C.
  struct handle {
    const linnet_api* api = nullptr;  ///< tells it from models of other types
    linnet_options options{};
    std::optional<weights<M, float>> own{};  ///< none behind a packed file
    packed<M, float> panels{memory_block{}};
    std::optional<session<M, float>> run{};
    std::optional<std::conditional_t<trains, trainer<M>, no_trainer>> train{};
    bool trained = false;  ///< since the panels were packed
  };

  static handle* of(linnet_model* model);

  /// Opens what runs and trains, over weights that are there.
  static result<void> start(handle& h) {
    const linnet_options& o = h.options;
    if (o.length < 0 || o.threads < 0 || !(o.rate >= 0 && is_finite(o.rate)))
      return failure(errc::invalid, "open", "options", "length, rate and threads of at least 0",
                     std::to_string(o.length) + ", " + std::to_string(o.rate) + ", " +
                         std::to_string(o.threads));
    const int threads = (std::max)(o.threads, std::int32_t{1});
    auto run = session<M, float>::open(h.panels, {.target = static_cast<index>(o.context),
                                                  .chunk = static_cast<index>(o.chunk),
                                                  .threads = threads});
    if (!run) return run.error();
    h.run.emplace(std::move(*run));
    if (o.batch == 0) return {};
    if constexpr (trains) {
      if (h.own) {
        auto train =
            trainer<M>::open(*h.own,
                             {.batch = static_cast<index>(o.batch),
                              .target = static_cast<index>(o.length > 0 ? o.length : o.context),
                              .threads = threads},
                             {.rate = schedule::constant(o.rate > 0 ? o.rate : 1e-3)},
                             {.patience = index{1} << 40});  // a refused call changes nothing
        if (!train) return train.error();
        h.train.emplace(std::move(*train));
        return {};
      }
    }
    return failure(errc::unsupported, "open", "options.batch",
                   "0, as packed and quantized weights are not trained", std::to_string(o.batch));
  }

  /// Weights out of the bytes of a file.
  static result<void> read(handle& h, memory_block&& block, std::size_t size,
                           const std::string& where) {
    const std::span bytes(static_cast<const std::byte*>(block.data()), size);
    const std::string_view text(reinterpret_cast<const char*>(bytes.data()), size);
    if (text.starts_with(packed_magic)) {
      const auto begin = check_packed<M, float>(bytes, where);
      if (!begin) return begin.error();
      h.panels = packed<M, float>(std::move(block), *begin);
      return {};
    }
    if constexpr (has_arrays) {
      if (text.starts_with("PK")) {
        h.own.emplace();
        if (auto done = load_npz(*h.own, bytes, where); !done) return done;
        h.panels = linnet::pack(*h.own);
        return h.panels.valid() ? result<void>() : h.panels.error();
      }
    }
    return failure(errc::malformed, where, "",
                   has_arrays ? "packed weights or an .npz file" : "packed weights",
                   "another beginning");
  }

  /// Makes a handle, fills it by `fill` and gives it to the caller.
  template <class Fill>
  static linnet_code made(const linnet_options* options, linnet_model** model,
                          Fill&& fill) LINNET_TRY {
    if (model == nullptr) return c_say(LINNET_INVALID, "open: model is null");
    *model = nullptr;
    owner<handle> h(new (std::nothrow) handle);
    if (!h) return c_failed(out_of_memory("open"));
    h->api = &api;
    if (!c_take(options, h->options))
      return c_say(LINNET_INVALID, "open: options.size is not sizeof(linnet_options)");
    if (auto done = fill(*h.get()); !done) return c_failed(done.error());
    if (auto done = start(*h.get()); !done) return c_failed(done.error());
    *model = reinterpret_cast<linnet_model*>(h.release());
    return c_say(LINNET_OK, "");
  }
  LINNET_WITHOUT_MEMORY(return c_failed(out_of_memory("open")))

  static linnet_code open_file(const char* path, const linnet_options* options,
                               linnet_model** model) LINNET_TRY {
    if (path == nullptr) {
      if (model != nullptr) *model = nullptr;
      return c_say(LINNET_INVALID, "open_file: path is null");
    }
    return made(options, model, [&](handle& h) -> result<void> {
      auto file = map_file(path);
      if (!file) return file.error();
      const auto size = static_cast<std::size_t>(file->size());
      return read(h, *std::move(file), size, path);
    });
  }
  LINNET_WITHOUT_MEMORY(return c_failed(out_of_memory("open_file")))
  static linnet_code open_memory(const void* bytes, std::size_t size, const linnet_options* options,
                                 linnet_model** model) {
    if (bytes == nullptr || size > std::size_t{PTRDIFF_MAX}) {
      if (model != nullptr) *model = nullptr;
      return c_say(LINNET_INVALID, "open_memory: bytes is null, or size beyond any memory");
    }
    return made(options, model, [&](handle& h) -> result<void> {
      memory_block copy(static_cast<index>(size));
      if (!copy.data()) return out_of_memory("open_memory");
      __builtin_memcpy(copy.data(), bytes, size);
      return read(h, std::move(copy), size, "memory");
    });
  }
  static linnet_code create(std::uint64_t random, const linnet_options* options,
                            linnet_model** model) {
    return made(options, model, [&](handle& h) -> result<void> {
      if constexpr (std::is_same_v<S, storage::f32>) {
        h.own.emplace();
        if (!h.own->valid()) return h.own->error();
        initialize(*h.own, seed{random});
        h.panels = linnet::pack(*h.own);
        return h.panels.valid() ? result<void>() : h.panels.error();
      } else {
        return failure(errc::unsupported, "create", "", "a model with f32 weights", "another");
      }
    });
  }
  static void close(linnet_model* model) {
    if (handle* const h = of(model)) delete h;
  }
  static linnet_code save(linnet_model* model, const char* path) LINNET_TRY {
    handle* const h = of(model);
    if (h == nullptr || path == nullptr)
      return c_say(LINNET_INVALID, "save: model or path is null, or the model is another's");
    if constexpr (has_arrays)
      if (h->own) return c_done(save_npz(*h->own, path));
    return c_say(LINNET_UNSUPPORTED, "save: packed weights are kept as the file that they are");
  }
  LINNET_WITHOUT_MEMORY(return c_failed(out_of_memory("save")))

  /// Gives the handle, whose session has the newest weights then; or says why not.
  static linnet_code ready(linnet_model* model, const char* why, handle*& h) {
    h = of(model);
    if (h == nullptr) return c_say(LINNET_INVALID, why);
    if (!h->trained) return LINNET_OK;
    auto panels = linnet::pack(*h->own);
    if (!panels.valid()) return c_failed(panels.error());
    h->panels = std::move(panels);
    h->trained = false;
    h->run->reset();
    return LINNET_OK;
  }
  static linnet_code reset(linnet_model* model) {
    handle* h = nullptr;
    if (const auto code = ready(model, "reset: model is null or another's", h); code != LINNET_OK)
      return code;
    h->run->reset();
    return c_say(LINNET_OK, "");
  }
  static linnet_code feed(linnet_model* model, const std::int32_t* tokens, std::size_t count,
                          float* logits, std::size_t room) {
    handle* h = nullptr;
    if (const auto code = ready(model, "feed: model is null or another's", h); code != LINNET_OK)
      return code;
    if (tokens == nullptr || logits == nullptr || count > std::size_t{INT32_MAX})
      return c_say(LINNET_INVALID, "feed: tokens or logits is null, or count beyond any context");
    if (room < static_cast<std::size_t>(M::vocabulary))
      return c_say(LINNET_INVALID,
                   "feed: room is below the model's vocabulary: give as many floats");
    const auto said = h->run->prefill({tokens, count});
    if (said.empty()) return c_refused(h->run->last_refusal());
    std::copy(said.begin(), said.end(), logits);
    return c_say(LINNET_OK, "");
  }
  static linnet_code generate(linnet_model* model, const std::int32_t* prompt, std::size_t count,
                              const linnet_sampling* sampling, linnet_on_token on_token, void* user,
                              std::size_t* written) {
    if (written != nullptr) *written = 0;
    handle* h = nullptr;
    if (const auto code = ready(model, "generate: model is null or another's", h);
        code != LINNET_OK)
      return code;
    if (prompt == nullptr || on_token == nullptr || count > std::size_t{INT32_MAX})
      return c_say(LINNET_INVALID,
                   "generate: prompt or on_token is null, or count beyond any context");
    linnet_sampling how{};
    if (!c_take(sampling, how))
      return c_say(LINNET_INVALID, "generate: sampling.size is not sizeof(linnet_sampling)");
    const sampling_options options{.temperature = how.temperature,
                                   .top_k = static_cast<index>(how.top_k),
                                   .top_p = how.top_p == 0 ? 1 : how.top_p,
                                   .seed = how.seed};
    if (!in_range(options)) return c_say(LINNET_INVALID, to_string(refusal::options));
    const index n = h->run->generate({prompt, count}, sampler(options),
                                     [&](token t) { return on_token(t, user) != 0; },
                                     {.tokens = static_cast<index>(how.tokens)});
    if (written != nullptr) *written = static_cast<std::size_t>(n);
    if (n == 0 && !h->run->last_refusal().empty()) return c_refused(h->run->last_refusal());
    return c_say(LINNET_OK, "");
  }
  static linnet_code train(linnet_model* model, const std::int32_t* tokens,
                           const std::int32_t* labels, std::size_t batch, std::size_t length,
                           double* loss) {
    handle* const h = of(model);
    if (h == nullptr || tokens == nullptr || labels == nullptr)
      return c_say(LINNET_INVALID,
                   "train: tokens, labels or model is null, or the model is another's");
    if (batch > std::size_t{INT32_MAX} || length > std::size_t{INT32_MAX})
      return c_say(LINNET_INVALID, "train: batch or length is beyond any limit");
    if constexpr (trains) {
      if (h->train) {
        const double before = h->train->step({.tokens = tokens,
                                              .labels = labels,
                                              .batch = static_cast<index>(batch),
                                              .length = static_cast<index>(length)});
        if (!is_finite(before)) return c_refused(h->train->last_refusal());
        h->trained = true;
        if (loss != nullptr) *loss = before;
        return c_say(LINNET_OK, "");
      }
    }
    return c_say(
        LINNET_UNSUPPORTED,
        "train: open weights of an .npz file, or create() them, with options.batch above 0");
  }
  static const char* message() { return c_message; }

  static constexpr linnet_api api{LINNET_ABI,     static_cast<std::int32_t>(M::vocabulary),
                                  LINNET_VERSION, open_file,
                                  open_memory,    create,
                                  close,          save,
                                  reset,          feed,
                                  generate,       train,
                                  message};
};

template <class M>
auto c_functions<M>::of(linnet_model* model) -> handle* {
  auto* const h = reinterpret_cast<handle*>(model);
  return h != nullptr && h->api == &api ? h : nullptr;
}

}  // namespace detail

/// The C interface of model `M` for a caller that was compiled with interface number `abi`; null
/// for one of another number. The table lives as long as the program.
template <class M>
const linnet_api* c_interface(std::uint32_t abi) {
  if constexpr (M::ids_per_token == 1)
    return abi == LINNET_ABI ? &detail::c_functions<M>::api : nullptr;
  else
    static_assert(
        detail::never<M>,
        "linnet::c_interface: models whose tokens are one id each; tokens of this one are "
        "several bytes");
  return nullptr;
}

LINNET_NAMESPACE_END
