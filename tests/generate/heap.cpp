// SPDX-License-Identifier: MIT
#include "model/heap.cpp"
