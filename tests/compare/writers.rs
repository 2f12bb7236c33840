//! An application writes while its stores are compared.
