#include "model/heap.cpp"
