// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Opt-in: search over model types and over what a trained model can lose.

#include <linnet/search/cost_model.hpp>
#include <linnet/search/halving.hpp>
#include <linnet/search/pareto.hpp>
#include <linnet/search/space.hpp>
#include <linnet/search/subnet.hpp>
