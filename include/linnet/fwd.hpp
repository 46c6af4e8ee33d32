// SPDX-License-Identifier: MIT
#pragma once
/// @file
/// Declarations for headers that only name linnet's types.

#include <linnet/core/shapes.hpp>

LINNET_NAMESPACE_BEGIN

template <class T>
class result;
struct error;
struct limits;
template <class M, class T>
class weights;
template <class M, class T, class S>
class packed;
template <class M, class T>
class session;
template <class M, class T>
class evaluator;
template <class M, class Optimizer, class T, class Compute>
class trainer;

LINNET_NAMESPACE_END
