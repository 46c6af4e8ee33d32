# SPDX-License-Identifier: MIT
"""Conan 2 recipe of the headers: conan create packaging/conan. It packages the tree it lies in."""

import os
import re

from conan import ConanFile
from conan.tools.build import check_min_cppstd
from conan.tools.cmake import CMake, CMakeDeps, CMakeToolchain, cmake_layout
from conan.tools.files import copy, load, rmdir
from conan.tools.gnu import PkgConfig
from conan.tools.system.package_manager import Apt


class Linnet(ConanFile):
    name = "linnet"
    description = "A header-only C++20 library of small language models"
    license = "MIT"
    topics = ("language-model", "deep-learning", "inference", "training", "header-only")
    package_type = "header-library"
    settings = "os", "arch", "compiler", "build_type"
    # The Eigen of the system, such as Debian's libeigen3-dev, instead of Conan's.
    options = {"system_eigen": [True, False]}
    default_options = {"system_eigen": False}
    no_copy_source = True

    def set_version(self):
        header = load(self, os.path.join(self.tree(), "include/linnet/core/platform.hpp"))
        self.version = ".".join(re.findall(r"define LINNET_VERSION_[A-Z]+ (\d+)", header))

    def tree(self):
        return os.path.join(self.recipe_folder, "..", "..")

    def export_sources(self):
        for pattern in ("CMakeLists.txt", "LICENSE", "cmake/*", "include/*"):
            copy(self, pattern, self.tree(), self.export_sources_folder)

    def layout(self):
        cmake_layout(self)

    def requirements(self):
        if not self.options.system_eigen:
            self.requires("eigen/[>=3.4.0 <6]", transitive_headers=True)

    def system_requirements(self):
        if self.options.system_eigen:
            Apt(self).install(["libeigen3-dev"], check=True)

    def validate(self):
        check_min_cppstd(self, 20)

    def package_id(self):
        self.info.settings.clear()

    def generate(self):
        toolchain = CMakeToolchain(self)
        for part in ("TESTS", "EXAMPLES", "BENCHMARKS", "KERNELS"):
            toolchain.cache_variables[f"LINNET_BUILD_{part}"] = False
        toolchain.generate()
        CMakeDeps(self).generate()

    def package(self):
        cmake = CMake(self)
        cmake.configure()
        cmake.install()
        copy(self, "LICENSE", self.source_folder, os.path.join(self.package_folder, "licenses"))
        rmdir(self, os.path.join(self.package_folder, "share"))

    def package_info(self):
        # find_package(linnet) takes the project's own files, which look for Eigen3 themselves.
        self.cpp_info.set_property("cmake_find_mode", "none")
        self.cpp_info.builddirs = [os.path.join("lib", "cmake", "linnet")]
        self.cpp_info.libdirs = []
        self.cpp_info.bindirs = []
        if self.options.system_eigen:
            PkgConfig(self, "eigen3").fill_cpp_info(self.cpp_info)
