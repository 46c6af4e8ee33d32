// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// RWKV-4 and RWKV-7: decoders without attention, spelled with the policies they are made of.

#include <linnet/model/decoder.hpp>
#include <linnet/nn/recurrent/channel_mix.hpp>
#include <linnet/nn/recurrent/rwkv4.hpp>
#include <linnet/nn/recurrent/rwkv7.hpp>

LINNET_NAMESPACE_BEGIN

/// RWKV-4 (Peng et al. 2023, arXiv:2305.13048). Heads play no part, and `context` limits
/// nothing but the default length of sessions.
template <decoder_shape Shape, class... Policies>
using rwkv4 = decoder<Shape, mixer::rwkv4, ffn::rwkv4_channel_mix, norm::layer_norm, position::none,
                      tie::untied, Policies...>;

/// RWKV-7 "Goose" (Peng et al. 2025, arXiv:2503.14456). heads * head width is d_model;
/// published models have heads of 64.
template <decoder_shape Shape, class... Policies>
using rwkv7 = decoder<Shape, mixer::rwkv7, ffn::rwkv7_channel_mix, norm::layer_norm, position::none,
                      tie::untied, Policies...>;

LINNET_NAMESPACE_END
